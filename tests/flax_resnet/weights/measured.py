"""Read weight files in this process, and print what each takes: python measured.py FILE…"""

import json
import os
import resource
import sys
import time

from flax_resnet.weights import WeightsError
from flax_resnet.weights.formats.files import read_file
from flax_resnet.weights.naming.layouts import detect_layout
from flax_resnet.weights.naming.names import find_network
from flax_resnet.weights.tensors import is_float, wrap_read_errors


def memory(field):
    """Return the process's resident memory or its peak, in bytes."""
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(field))
    return 1024 * int(line.split()[1])


def measure(path):
    """Return the error or the tensors, the seconds of CPU time and the bytes at the peak."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # resets the peak
    before, start = memory("VmRSS"), time.process_time()
    error, tensors = None, 0
    try:
        file = read_file(path)
        tensors = len(file.tensors)
        detect_layout(find_network(file, path).tensors)
        for tensor in filter(lambda t: is_float(t.dtype), file.tensors.values()):
            with wrap_read_errors(path):  # as load_weights does
                tensor.read()
    except WeightsError as caught:
        error = str(caught)
    return {
        "path": path,
        "error": error,
        "tensors": tensors,
        "seconds": time.process_time() - start,
        "bytes": memory("VmHWM") - before,
        "size": os.path.getsize(path),
    }


if __name__ == "__main__":
    limit = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + 4 * 10**9
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for argument in sys.argv[1:]:
        print(json.dumps(measure(argument)), flush=True)
