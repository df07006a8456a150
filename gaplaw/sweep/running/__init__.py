"""How is a sweep started, watched, retried and finished?"""
