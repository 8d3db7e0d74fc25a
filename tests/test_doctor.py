"""What `c1m doctor` finds: on this machine, under limits that are lowered, and on machines of paper."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from client import PATIENCE

import c1m
from c1m.cli import main
from c1m.machine import KERNEL_BYTES, MAX_TABLE, OWN_DESCRIPTORS, WORKER_BYTES, size

GIB = 1 << 30
LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units
Max cpu time              unlimited            unlimited            seconds
Max open files            {}                 {}              files
"""
MACHINE = {                      # one that allows a million
    "proc/self/limits": LIMITS.format(1024, 1 << 20),
    "proc/self/status": "Name:\tpython\nCpus_allowed:\tff\nCpus_allowed_list:\t0-3,8\n",
    "proc/self/cgroup": "",
    "proc/meminfo": "MemTotal:       33554432 kB\nMemFree:         1000000 kB\nMemAvailable:   16777216 kB\n",
    "proc/sys/fs/nr_open": "1048576\n",
    "proc/sys/fs/file-max": "9223372036854775807\n",
    "proc/sys/fs/file-nr": "1000\t0\t9223372036854775807\n",
    "proc/sys/net/core/somaxconn": "4096\n",
    "proc/sys/net/ipv4/tcp_mem": "1000000\t1500000\t2000000\n",
    "proc/sys/net/ipv4/tcp_rmem": "4096\t131072\t6291456\n",
    "proc/sys/net/ipv4/tcp_wmem": "4096\t16384\t4194304\n",
    "proc/sys/net/ipv4/ip_local_port_range": "32768\t60999\n",
}


@pytest.fixture
def found(tmp_path):
    """What is found on a machine of these files, by name: (state, text, mend), and the whole diagnosis."""
    def look(connections=1_000_000, workers=None, **files):
        for path, text in {**MACHINE, **{path.replace("__", "/"): text for path, text in files.items()}}.items():
            if text is None:
                continue
            at = tmp_path / path
            at.parent.mkdir(parents=True, exist_ok=True)
            at.write_text(text)
        diagnosis = c1m.doctor(connections, workers, root=tmp_path)
        return {each.name: each for each in diagnosis.findings}, diagnosis

    return look


def with_files(look, files, **more):
    """The same, for paths that are no names."""
    return look(**more, **{path.replace("/", "__"): text for path, text in files.items()})


# ---- a machine that allows it ----


def test_all_is_good(found):
    by_name, diagnosis = found()
    assert diagnosis.possible
    assert {each.state for each in diagnosis.findings} == {"good"}
    assert list(by_name) == ["descriptors", "file-max", "memory", "CPUs", "backlog", "TCP memory", "TCP buffers",
                             "source ports", "conntrack"]
    assert diagnosis.workers == 1
    assert diagnosis.kernel_bytes == KERNEL_BYTES * 1_000_000
    assert 64_000_000 < diagnosis.own_bytes < 64_000_000 + 50 * (1 << 20)
    assert by_name["file-max"].text == "fs.file-max is no limit, for all processes, of which 1,000 are open"
    assert by_name["CPUs"].text.startswith("5 CPUs")
    assert by_name["CPUs"].mend == "c1m serve --workers 5"
    assert by_name["source ports"].mend == "c1m serve --port 8001-8036"


# ---- what falls short, each on both sides of its limit ----


def test_descriptors_are_what_workers_are_for(found):
    hard = 20_000
    for n, workers in ((hard - OWN_DESCRIPTORS, 1), (hard - OWN_DESCRIPTORS + 1, 2), (2_000_000, 101)):
        by_name, diagnosis = with_files(found, {"proc/self/limits": LIMITS.format(20_000, hard)}, connections=n)
        assert diagnosis.workers == workers
        assert by_name["descriptors"].state == "good"
        assert by_name["descriptors"].mend == ("" if workers == 1 else f"c1m serve --workers {workers}")
    assert diagnosis.own_bytes > 101 * WORKER_BYTES


def test_too_few_workers_are_told_how_many(found):
    files = {"proc/self/limits": LIMITS.format(1024, 20_000)}
    by_name, diagnosis = with_files(found, files, workers=50)
    assert (by_name["descriptors"].state, diagnosis.possible) == ("short", False)
    assert by_name["descriptors"].text.endswith(f", and {20_000 + OWN_DESCRIPTORS:,} are needed")
    assert by_name["descriptors"].mend == "c1m serve --workers 51"
    assert with_files(found, files, workers=51)[1].possible


def test_a_limit_that_leaves_nothing(found):
    by_name, _ = with_files(found, {"proc/self/limits": LIMITS.format(64, 100)})
    assert by_name["descriptors"].state == "short"
    wanted = 1_000_000 + OWN_DESCRIPTORS
    assert by_name["descriptors"].mend == f"ulimit -Hn {wanted} as root, or LimitNOFILE={wanted} in a unit of systemd"
    by_name, _ = with_files(found, {"proc/self/limits": LIMITS.format(64, 100), "proc/sys/fs/nr_open": "1000"})
    assert by_name["descriptors"].mend.startswith(f"sysctl -w fs.nr_open={wanted}, then ulimit")


def test_no_limit_is_that_of_the_table(found):
    files = {"proc/self/limits": LIMITS.format("unlimited", "unlimited")}
    most = MAX_TABLE - OWN_DESCRIPTORS
    assert with_files(found, files, connections=most)[1].workers == 1
    assert with_files(found, files, connections=most + 1)[1].workers == 2


@pytest.mark.parametrize("enough", [True, False])
@pytest.mark.parametrize(("name", "state", "path", "least", "text", "mend"), [
    ("file-max", "short", "proc/sys/fs/file-max", 1_000_000 + 1000 + OWN_DESCRIPTORS, "{}",
     f"sysctl -w fs.file-max={1_000_000 + 1000 + OWN_DESCRIPTORS}"),
    ("backlog", "poor", "proc/sys/net/core/somaxconn", 4096, "{}", "sysctl -w net.core.somaxconn=4096"),
    ("TCP memory", "poor", "proc/sys/net/ipv4/tcp_mem", 1_000_000, "1 2 {}",
     "sysctl -w net.ipv4.tcp_mem='500000 666666 1000000'"),
    ("conntrack", "short", "proc/sys/net/netfilter/nf_conntrack_max", 1_000_007, "{}",
     "sysctl -w net.netfilter.nf_conntrack_max=1000007"),
])
def test_a_setting_of_the_kernel_on_both_sides(name, state, path, least, text, mend, enough, found):
    files = {path: text.format(least if enough else least - 1), "proc/sys/net/netfilter/nf_conntrack_count": "7"}
    by_name, diagnosis = with_files(found, files)
    if enough:
        assert (by_name[name].state, by_name[name].mend, diagnosis.possible) == ("good", "", True)
    else:
        assert (by_name[name].state, by_name[name].mend) == (state, mend)
        assert diagnosis.possible == (state != "short")


@pytest.mark.parametrize(("capabilities", "state"), [
    ("0000000000200000", "poor"), ("000001ffffffffff", "poor"), ("000001ffffdfffff", "short"), ("0", "short"),
    ("x", "short"),
])
def test_the_systems_limit_of_files_does_not_bind_its_administrator(capabilities, state, found):
    files = {"proc/sys/fs/file-max": "1000000", "proc/self/status": f"Name:\tpython\nCapEff:\t{capabilities}\n"}
    by_name, diagnosis = with_files(found, files)
    assert by_name["file-max"].state == state
    assert diagnosis.possible == (state == "poor")


def test_memory_on_both_sides(found):
    _, diagnosis = found()
    wanted = (diagnosis.own_bytes + diagnosis.kernel_bytes + 1023) // 1024
    for kib, possible in ((wanted, True), (wanted - 1, False)):
        by_name, diagnosis = with_files(found, {"proc/meminfo": f"MemAvailable: {kib} kB\n"})
        assert diagnosis.possible == possible
        assert "of c1m's and 3.82 GiB of the kernel's are needed, idle" in by_name["memory"].text


@pytest.mark.parametrize(("tracked", "most", "state"), [
    ("0", "1000", "poor"), ("1", "1000", "short"), ("5", "0", "good"), ("0", "2000000", "good"),
])
def test_tracked_connections(tracked, most, state, found):
    by_name, _ = with_files(found, {"proc/sys/net/netfilter/nf_conntrack_count": tracked,
                                    "proc/sys/net/netfilter/nf_conntrack_max": most})
    assert by_name["conntrack"].state == state


def test_source_ports(found):
    by_name, _ = found(connections=28_232)
    assert by_name["source ports"].mend == ""
    by_name, _ = found(connections=28_233)
    assert by_name["source ports"].mend == "c1m serve --port 8001-8002"


# ---- cgroups ----


def cgroup2(limit, current, pids="max", cpu="max 100000", path="/a/b"):
    at = f"sys/fs/cgroup{path}"
    return {
        "proc/self/cgroup": f"0::{path}\n",
        f"{at}/memory.max": limit,
        f"{at}/memory.current": current,
        f"{at}/memory.stat": f"anon 5\ninactive_file {1 << 20}\nactive_file 7\n",
        f"{at}/pids.max": pids,
        f"{at}/pids.current": "10",
        f"{at}/cpu.max": cpu,
    }


def cgroup1(limit, current, pids="max", quota="-1"):
    return {
        "proc/self/cgroup": "9:name=systemd:/x\n8:pids:/p\n4:memory:/m/n\n2:cpu,cpuacct:/c\n",
        "sys/fs/cgroup/memory/m/n/memory.limit_in_bytes": limit,
        "sys/fs/cgroup/memory/m/n/memory.usage_in_bytes": current,
        "sys/fs/cgroup/memory/m/n/memory.stat": f"inactive_file 5\ntotal_inactive_file {1 << 20}\n",
        "sys/fs/cgroup/pids/p/pids.max": pids,
        "sys/fs/cgroup/pids/p/pids.current": "10",
        "sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_quota_us": quota,
        "sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_period_us": "100000",
    }


@pytest.mark.parametrize(("version", "where"), [
    (cgroup2, "/sys/fs/cgroup/a/b/memory.max"), (cgroup1, "/sys/fs/cgroup/memory/m/n/memory.limit_in_bytes"),
])
def test_memory_of_a_cgroup(version, where, found):
    by_name, diagnosis = with_files(found, version(str(GIB), str(GIB // 2)))
    finding = by_name["cgroup memory"]
    assert (finding.state, diagnosis.possible) == ("short", False)
    assert finding.text.startswith(f"513 MiB left below {where}, and ")      # with what the page cache has
    assert where in finding.mend
    by_name, diagnosis = with_files(found, version(str(8 * GIB), str(GIB)))
    assert (by_name["cgroup memory"].state, diagnosis.possible) == ("good", True)


@pytest.mark.parametrize("files", [
    cgroup2("max", "1000"), cgroup1("9223372036854771712", "1000"), cgroup2("", ""), cgroup1("-1", "many"),
    {"proc/self/cgroup": "nonsense\n0::\n::\n"}, {"proc/self/status": "Cpus_allowed_list: 1-2-3\n"},
    {"proc/self/cgroup": None},
])
def test_no_limit_or_none_that_can_be_read(files, found):
    by_name, diagnosis = with_files(found, files)
    assert "cgroup memory" not in by_name
    assert diagnosis.possible


def test_the_lowest_limit_above_counts(found):
    files = cgroup2(str(GIB * 9), "0") | {
        "sys/fs/cgroup/a/memory.max": str(GIB), "sys/fs/cgroup/a/memory.current": "0",
    }
    by_name, _ = with_files(found, files)
    assert "/sys/fs/cgroup/a/memory.max" in by_name["cgroup memory"].text


def test_that_of_a_container_is_at_the_top(found):
    """Of version 1, whose path is the host's; and of 2, with a namespace of its own or without one."""
    for files in (
        {"proc/self/cgroup": "4:memory:/docker/0123\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": str(GIB),
         "sys/fs/cgroup/memory/memory.usage_in_bytes": "0"},
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": str(GIB), "sys/fs/cgroup/memory.current": "0"},
        {"proc/self/cgroup": "0::/../host\n", "sys/fs/cgroup/memory.max": str(GIB),
         "sys/fs/cgroup/memory.current": "0"},
    ):
        assert with_files(found, files)[0]["cgroup memory"].state == "short"


@pytest.mark.parametrize("version", [cgroup2, cgroup1])
def test_tasks_of_a_cgroup(version, found):
    limits = {"proc/self/limits": LIMITS.format(1024, 20_000)}      # 51 workers, with 154 tasks
    by_name, diagnosis = with_files(found, version(str(9 * GIB), "0", pids="163") | limits)
    assert (by_name["cgroup tasks"].state, diagnosis.possible) == ("short", False)
    assert by_name["cgroup tasks"].text.endswith("leaves 153 processes and threads, and 51 workers need 154")
    assert "pids.max by 1 " in by_name["cgroup tasks"].mend
    by_name, diagnosis = with_files(found, version(str(9 * GIB), "0", pids="164") | limits)
    assert (by_name["cgroup tasks"].state, diagnosis.possible) == ("good", True)


@pytest.mark.parametrize(("files", "text", "mend"), [
    (cgroup2("max", "0", cpu="250000 100000"), "5 CPUs, and by /sys/fs/cgroup/a/b/cpu.max the time of 2.5",
     "c1m serve --workers 2"),
    (cgroup1("-1", "0", quota="50000"),
     "5 CPUs, and by /sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_quota_us the time of 0.5", ""),
    (cgroup1("-1", "0"), "5 CPUs", "c1m serve --workers 5"),
    (cgroup2("max", "0"), "5 CPUs", "c1m serve --workers 5"),
])
def test_processor_time_of_a_cgroup(files, text, mend, found):
    by_name, _ = with_files(found, files)
    assert by_name["CPUs"].text.removesuffix(": as many workers use all of them") == text
    assert by_name["CPUs"].mend == mend


# ---- what can't be read ----


def test_where_nothing_can_be_read_nothing_is_claimed(tmp_path):
    diagnosis = c1m.doctor(root=tmp_path)
    assert diagnosis.possible
    states = {each.name: each.state for each in diagnosis.findings}
    assert states.pop("conntrack") == "good"     # which is not loaded on most machines
    assert set(states.values()) == {"unknown"}


@pytest.mark.parametrize("text", ["", "\n", "many", "-1", "12.5", "\0", "9" * 5000, "9" * 5000 + "x", "1-2-3"])
@pytest.mark.parametrize("path", sorted(MACHINE))
def test_nonsense_is_unknown(path, text, found):
    _, diagnosis = with_files(found, {path: text})
    assert diagnosis.possible or path == "proc/sys/fs/file-nr"
    assert diagnosis.to_json()


def test_huge_values(found):
    huge = str(1 << 63)
    files = dict.fromkeys([path for path in MACHINE if path.startswith("proc/sys/net/")], f"{huge} {huge} {huge}")
    _, diagnosis = with_files(found, files | {"proc/meminfo": f"MemAvailable: {huge} kB"})
    assert diagnosis.possible
    assert not with_files(found, {}, connections=1 << 40)[1].possible


def test_a_directory_in_place_of_a_file(found, tmp_path):
    (tmp_path / "proc/sys/net/core/somaxconn").mkdir(parents=True)
    by_name, _ = with_files(found, {"proc/sys/net/core/somaxconn": None})
    assert by_name["backlog"].state == "unknown"


@pytest.mark.parametrize(("arguments", "error", "says"), [
    ({"connections": 0}, ValueError, "connections: 0 is not above 0"),
    ({"workers": -1}, ValueError, "workers: -1 is not above 0"),
    ({"connections": "5"}, TypeError, "connections: '5' is not an int"),
    ({"workers": True}, TypeError, "workers: True is not an int"),
    ({"connections": None}, TypeError, "connections: None is not an int"),
])
def test_what_is_no_number_is_refused(arguments, error, says):
    with pytest.raises(error) as raised:
        c1m.doctor(**arguments)
    assert str(raised.value) == says


@pytest.mark.parametrize(("n", "said"), [
    (0, "0 bytes"), (1023, "1023 bytes"), (1024, "1 KiB"), (1536 << 10, "1.5 MiB"), (999 << 20, "999 MiB"),
    (1001 << 20, "1,001 MiB"), (5 << 40, "5,120 GiB"),
])
def test_sizes_are_said_shortly(n, said):
    assert size(n) == said


# ---- this machine ----


def test_this_machine_holds_one_connection():
    diagnosis = c1m.doctor(1)
    assert diagnosis.possible
    [descriptors] = [each for each in diagnosis.findings if each.name == "descriptors"]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert f"{hard:,} in each process" in descriptors.text
    assert f"the soft limit, {soft:,}, to it" in descriptors.text


def test_what_the_kernel_takes_is_what_its_slabs_say():
    try:
        lines = Path("/proc/slabinfo").read_text().splitlines()
    except OSError:
        pytest.skip("/proc/slabinfo is root's to read")
    sizes = {words[0]: int(words[3]) for words in map(str.split, lines[2:])}
    takes = sum(sizes.get(name, 0) for name in ("TCP", "sock_inode_cache", "filp", "dentry", "eventpoll_epi"))
    if not {"TCP", "sock_inode_cache"} <= sizes.keys():
        pytest.skip("this kernel merges its slabs")
    assert takes < KERNEL_BYTES < 1.25 * takes


# ---- the command ----


def ran(*arguments, limit=None):
    """`c1m doctor`: its output, errors and status; limit: RLIMIT_NOFILE, soft and hard."""
    done = subprocess.run(
        [sys.executable, "-m", "c1m", "doctor", *map(str, arguments)], capture_output=True, text=True, timeout=PATIENCE,
        preexec_fn=limit and (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limit)),
    )
    return done.stdout, done.stderr, done.returncode


def test_the_command_says_a_line_for_each():
    out, errors, status = ran("--connections", 10)
    assert (errors, status) == ("", 0)
    *lines, last = out.splitlines()
    assert len(lines) == len(c1m.doctor(10).findings)
    assert all(line.split()[0] in ("good", "poor", "unknown") for line in lines)
    assert last.startswith("10 connections can be held, in 1 worker and 18 MiB of memory")
    assert "\033" not in out


def test_a_lowered_limit_asks_for_workers():
    out, _, status = ran("--connections", 2000, limit=(300, 600))
    assert status == 0
    assert "good    descriptors   600 in each process (RLIMIT_NOFILE; c1m raises the soft limit, 300, to it): 5" in out
    out, _, status = ran("--connections", 2000, "--workers", 4, limit=(300, 600))
    assert status == 1
    assert "short   descriptors   600 in each process" in out
    assert "and 628 are needed: c1m serve --workers 5\n" in out
    assert out.splitlines()[-1].startswith("2,000 connections can't be held, in 4 workers and ")


def test_json():
    out, errors, status = ran("--connections", 2000, "--workers", 4, "--json", limit=(300, 600))
    assert (errors, status) == ("", 1)
    said = json.loads(out)
    assert (said["connections"], said["workers"], said["possible"]) == (2000, 4, False)
    assert said["findings"][0]["mend"] == "c1m serve --workers 5"


@pytest.mark.parametrize("arguments", [["--connections", "0"], ["--connections", "many"], ["--workers", "0"], ["x"]])
def test_a_wrong_usage_is_status_2(arguments):
    out, errors, status = ran(*arguments)
    assert (out, status) == ("", 2)
    assert errors.splitlines()[-1].startswith("Error: ")


def test_colours_are_for_terminals():
    assert "\033[3" in CliRunner().invoke(main, ["doctor", "--connections", "10"], color=True).output
