"""Will every program of a sweep start, train, survive a kill and write its rows?"""
