"""A pool whose processes were all ended from outside, as for lack of memory."""

from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool


class Broken:
    def __init__(self, *arguments):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def shutdown(self, **options):
        pass

    def submit(self, *arguments):
        future = Future()
        future.set_exception(BrokenProcessPool("gone"))
        return future
