#!/usr/bin/env python3
"""Notes what the threads of the server, Redis and PostgreSQL use while a load runs, as rows `seconds process thread cpu_s switches`.

    scripts/scale/threads.py REDIS_PID POSTGRES_PID     until it is ended (SIGTERM)

The server is whatever `serve` a generator has started as its child, beside us. `switches` are those that a thread made by itself, to wait: so often
it was woken.
"""
import os, signal, sys, time


def parent_and_command(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            parent = int(file.read().rsplit(")", 1)[1].split()[1])
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return parent, file.read().split(b"\0")
    except OSError:
        return None, []


def servers(shell):
    """A generator is a child of the shell that started us, a server a child of that."""
    found = {int(name): parent_and_command(name) for name in os.listdir("/proc") if name.isdigit()}
    generators = {pid for pid, (parent, _) in found.items() if parent == shell}
    return [pid for pid, (parent, command) in found.items() if parent in generators and b"serve" in command]


def children(root):
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and parent_and_command(name)[0] == root]


def sample(process, pid, at):
    for thread in os.listdir(f"/proc/{pid}/task"):
        folder = f"/proc/{pid}/task/{thread}"
        try:
            name = open(f"{folder}/comm").read().strip().replace(" ", "_")
            cpu_s = int(open(f"{folder}/schedstat").read().split()[0]) / 1e9
            status = open(f"{folder}/status").read()
        except OSError:
            continue
        switches = int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0])
        print(f"{at:.3f} {process} {name}.{thread} {cpu_s:.6f} {switches}")


def main():
    redis, postgres, shell = int(sys.argv[1]), int(sys.argv[2]), os.getppid()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    begin, server, backends, looked = time.monotonic(), [], [], -10.0
    while True:
        at = time.monotonic() - begin
        if at - looked > 1.0 or not server:
            server, backends, looked = servers(shell), children(postgres), at
        for process, pids in (("server", server), ("redis", [redis]), ("postgres", backends)):
            for pid in pids:
                try:
                    sample(process, pid, at)
                except OSError:
                    # It has ended.
                    looked = -10.0
        sys.stdout.flush()
        time.sleep(0.25)


if __name__ == "__main__":
    main()
