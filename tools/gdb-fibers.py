# gdb command `fibers`: every live fiber of the current thread's loop, what it waits on, and its backtrace.
#   (gdb) source tools/gdb-fibers.py
#   (gdb) fibers            all, one line each
#   (gdb) fibers bt         with backtraces
# A parked fiber's saved registers lie where fcontext put them: at its `fcontext` pointer, 0x30 bytes of r12 r13 r14 r15 rbx rbp after
# 8 bytes of floating point state, then the return address.
import gdb


def word(address):
    return int.from_bytes(gdb.selected_inferior().read_memory(address, 8).tobytes(), "little")


def fibers(loop):
    fiber = loop["all"]
    while int(fiber):
        yield fiber
        fiber = fiber["all_next"]


def walk(fiber, limit=30):
    """Return addresses of a parked fiber by its frame pointers (the build keeps them)."""
    base = int(fiber["fcontext"])
    low = int(fiber["stack"])
    frame, address = word(base + 0x30), word(base + 0x38)
    for _ in range(limit):
        yield address
        if not low <= frame < low + (1 << 18):
            return
        frame, address = word(frame), word(frame + 8)
        if address == 0:
            return


class Fibers(gdb.Command):
    """List live fibers; `fibers bt` with backtraces."""

    def __init__(self):
        super().__init__("fibers", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        loop = gdb.parse_and_eval("'loop.c'::loop_of_thread")
        if not int(loop):
            print("this thread has no loop")
            return
        for fiber in fibers(loop.dereference()):
            node = fiber["waiting"]
            state = node["what"].string() if int(node) else ("running" if fiber == loop["current"] else "ready")
            print("%s  gate %s  %s" % (fiber["name"].string(), fiber["gate"]["name"].string(), state))
            if argument != "bt" or fiber == loop["current"]:
                continue
            for address in walk(fiber):
                line = gdb.find_pc_line(address)
                block = gdb.block_for_pc(address)
                while block and not block.function:
                    block = block.superblock
                where = "%s:%d" % (line.symtab.filename, line.line) if line.symtab else "?"
                print("    0x%x %s at %s" % (address, block.function if block else "?", where))


Fibers()
