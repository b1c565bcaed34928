"""The contenders: each function takes a row's turns and reports what they cost.

One module a library, and only a seat imports them, each in a process of its own: what one library
needs is not in another's way, and one that is not installed is missed only by its own rows. Where
a contender forks, its module imports as little as the work needs.
"""
