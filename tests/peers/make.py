"""`make peers`: writes the results of all peers to tests/golden; one machine always writes the same bytes."""

from benchmarks.peers.case import solve
from tests.peers import golden
from tests.peers.catalogue import CASES


def main():
    for name in set(golden.list_cases()) - set(CASES):
        golden.case_path(name).unlink()
        print(f"removed {golden.case_path(name).name}: this case does not exist any more")
    for name, case in sorted(CASES.items()):
        path = golden.save(name, solve(name, case))
        print(f"{path.name:<32} {path.stat().st_size / 1000:6.1f} kB")


if __name__ == "__main__":
    main()
