"""Python imports this at its start where its folder is on PYTHONPATH: sockets reach this machine alone.

What is tried is also written to $OFFLINE_LOG: a library may swallow the error.
"""

import ipaddress
import os
import socket


def _is_local(host) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _refuse(what: str) -> None:
    with open(os.environ["OFFLINE_LOG"], "a", encoding="utf-8") as log:
        log.write(f"{what}\n")
    raise OSError(f"no network in this test: {what}")


def _guarded(method):
    """A method of sockets whose last argument is an address."""

    def call(self, *arguments):
        if self.family != socket.AF_UNIX and not _is_local(arguments[-1][0]):
            _refuse(f"{method.__name__} {arguments[-1]}")
        return method(self, *arguments)

    return call


def _lookup(function):
    def call(host, *arguments, **options):
        if not _is_local(host):
            _refuse(f"{function.__name__} {host}")
        return function(host, *arguments, **options)

    return call


for _name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, _name, _guarded(getattr(socket.socket, _name)))
for _name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
    setattr(socket, _name, _lookup(getattr(socket, _name)))
