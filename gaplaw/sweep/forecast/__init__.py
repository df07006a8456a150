"""Does a sweep fit a machine that is not here, and what will it cost there?"""
