"""Ties a child process to this one on Windows: when this process ends, however, so does the child.

A job object ends its processes when the last handle to it is closed, and the system closes the
handles of a process that ends. Written after Microsoft's documentation of `CreateJobObject` and
`JOBOBJECT_EXTENDED_LIMIT_INFORMATION`; it has never run on Windows. Other systems have terminals
for that: see `llama_server`.

Imports only the standard library: the engine's host process uses this module.
"""

import ctypes
import signal
from typing import Any

STATUS_ILLEGAL_INSTRUCTION = 0xC000001D
_STATUS_ACCESS_VIOLATION = 0xC0000005
_KILL_ON_JOB_CLOSE = 0x2000  # JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
_EXTENDED_LIMITS = 9  # JobObjectExtendedLimitInformation
_HANDLE = ctypes.c_void_p


class _BasicLimits(ctypes.Structure):
    """JOBOBJECT_BASIC_LIMIT_INFORMATION."""

    _fields_ = [
        ("PerProcessUserTimeLimit", ctypes.c_int64),
        ("PerJobUserTimeLimit", ctypes.c_int64),
        ("LimitFlags", ctypes.c_uint32),
        ("MinimumWorkingSetSize", ctypes.c_size_t),
        ("MaximumWorkingSetSize", ctypes.c_size_t),
        ("ActiveProcessLimit", ctypes.c_uint32),
        ("Affinity", ctypes.c_size_t),
        ("PriorityClass", ctypes.c_uint32),
        ("SchedulingClass", ctypes.c_uint32),
    ]


class _ExtendedLimits(ctypes.Structure):
    """JOBOBJECT_EXTENDED_LIMIT_INFORMATION. The six counters are IO_COUNTERS."""

    _fields_ = [
        ("BasicLimitInformation", _BasicLimits),
        ("IoInfo", ctypes.c_uint64 * 6),
        ("ProcessMemoryLimit", ctypes.c_size_t),
        ("JobMemoryLimit", ctypes.c_size_t),
        ("PeakProcessMemoryUsed", ctypes.c_size_t),
        ("PeakJobMemoryUsed", ctypes.c_size_t),
    ]


def tie(process: int, kernel32: Any = None) -> int:
    """Puts the process with the handle `process` into a new job. Raises OSError.

    Returns the handle of the job, which stays open as long as this process lives.
    """
    kernel32 = kernel32 or _kernel32()
    job = kernel32.CreateJobObjectW(None, None)
    if not job:
        raise _error()
    limits = _ExtendedLimits()
    limits.BasicLimitInformation.LimitFlags = _KILL_ON_JOB_CLOSE
    is_done = kernel32.SetInformationJobObject(
        job, _EXTENDED_LIMITS, ctypes.byref(limits), ctypes.sizeof(limits)
    ) and kernel32.AssignProcessToJobObject(job, process)
    if not is_done:
        error = _error()
        kernel32.CloseHandle(job)
        raise error
    return int(job)


def shell_status(code: int) -> int:
    """The exit status of a process as a shell on other systems reports it: 128 and a signal."""
    signals = {
        STATUS_ILLEGAL_INSTRUCTION: signal.SIGILL,
        _STATUS_ACCESS_VIOLATION: signal.SIGSEGV,
    }
    # Windows counts from 0 to 2**32, and Python may take that for negative numbers.
    number = signals.get(code % 2**32)
    return 128 + number if number else code


def _kernel32() -> Any:
    library = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined]
    # Handles are pointers. Without these types, ctypes cuts them to 32 bits.
    library.CreateJobObjectW.restype = _HANDLE
    library.CreateJobObjectW.argtypes = [_HANDLE, ctypes.c_wchar_p]
    library.SetInformationJobObject.argtypes = [_HANDLE, ctypes.c_int, _HANDLE, ctypes.c_uint32]
    library.AssignProcessToJobObject.argtypes = [_HANDLE, _HANDLE]
    library.CloseHandle.argtypes = [_HANDLE]
    return library


def _error() -> OSError:
    last_error = getattr(ctypes, "get_last_error", int)
    return OSError(last_error(), "the process cannot be tied to its host")
