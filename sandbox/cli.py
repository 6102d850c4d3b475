"""The command line of the sandbox."""

import argparse
import os
import sys
from pathlib import Path
from time import monotonic, time

from sandbox import lifecycle, needs, world
from sandbox.layout import HERE, SandboxError
from sandbox.progress import say
from sandbox.publish import publish, sources

ADDRESSES = {
    "dockerd": "DOCKER_HOST",
    "registry": "PIPE_REGISTRY",
    "git-host": "PIPE_GIT_URL",
    "mail-sink": "PIPE_SMTP",
    "kube-apiserver": "PIPE_KUBECONFIG",
}


def main(arguments: list[str]) -> int:
    """Run the command; return 0 (good), 1 (not good), 2 (the machine or the call is wrong) or 130 (interrupted)."""
    options = _parser().parse_args(arguments)
    # A shell that became root by su may not look there.
    os.environ["PATH"] += ":/usr/local/sbin:/usr/sbin:/sbin"
    try:
        return int(COMMANDS[options.command](options))
    except needs.Lacking as lacking:
        print(lacking, file=sys.stderr)
        return 2
    except (SandboxError, OSError) as problem:
        say(f"sandbox: {problem}")
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sandbox", description=lifecycle.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start it, unless a healthy one runs")
    commands.add_parser("down", help="end it and remove all but its logs")
    commands.add_parser("status", help="say how each part is; exit 0 if all are well")
    commands.add_parser("env", help="print the variables that say where everything is")
    commands.add_parser("tools", help="install what the tests start themselves")
    run = commands.add_parser("exec", help="run a command with these variables")
    run.add_argument("argv", nargs="+", metavar="CMD")
    publisher = commands.add_parser("publish", help="put folders on the git host (default: examples/sources/*)")
    publisher.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    part = commands.add_parser("part", help="stop, kill, start, pause or resume one part")
    part.add_argument("part")
    part.add_argument("verb", choices=["stop", "kill", "start", "pause", "resume"])
    return parser


def _up(_: argparse.Namespace) -> int:
    began = monotonic()
    started = lifecycle.up()
    env = lifecycle.read_env(HERE)
    state = f"is up after {monotonic() - began:.1f} s" if started else "runs already"
    say(f"sandbox: {state} at {env['PIPE_NODE']}; `python -m sandbox env` says the rest")
    return 0


def _down(_: argparse.Namespace) -> int:
    lifecycle.down()
    return 0


def _status(_: argparse.Namespace) -> int:
    problems = world.problems(HERE)
    known = world.book(HERE)
    if known and world.record(HERE):
        _print_table(known)
    for problem in problems:
        print(problem)
    return 1 if problems else 0


def _print_table(known: dict[str, dict[str, object]]) -> None:
    env = lifecycle.read_env(HERE)
    print(f"{'part':<25}{'state':<10}{'address':<50}uptime")
    for name, one in known.items():
        address = env[ADDRESSES[name]] if name in ADDRESSES else ""
        uptime = f"{time() - float(str(one['since'])):.0f} s" if one["state"] == "running" else "-"
        print(f"{name:<25}{one['state']:<10}{address:<50}{uptime}")
    for name in ADDRESSES.keys() - known.keys():
        print(f"{name:<25}{'yours':<10}{env[ADDRESSES[name]]}")


def _env(_: argparse.Namespace) -> int:
    print("\n".join(f"{name}={value}" for name, value in lifecycle.read_env(HERE).items()))
    return 0


def _tools(_: argparse.Namespace) -> int:
    needs.install_for_tests()
    return 0


def _exec(options: argparse.Namespace) -> int:
    try:
        os.execvpe(options.argv[0], options.argv, {**os.environ, **lifecycle.read_env(HERE)})  # noqa: S606
    except OSError as problem:
        raise SandboxError(f"{options.argv[0]}: {problem.strerror}") from problem


def _publish(options: argparse.Namespace) -> int:
    if not world.record(HERE):
        raise SandboxError("there is no sandbox to publish to: run `make up`")
    url = lifecycle.read_env(HERE)["PIPE_GIT_URL"]
    for folder in options.folders or sources():
        print(f"{publish(folder)}  {url}/{folder.resolve().name}.git")
    return 0


def _part(options: argparse.Namespace) -> int:
    answer = world.order(HERE, options.verb, options.part)
    if answer != "ok":
        raise SandboxError(answer)
    return 0


COMMANDS = {
    "up": _up,
    "down": _down,
    "status": _status,
    "env": _env,
    "tools": _tools,
    "exec": _exec,
    "publish": _publish,
    "part": _part,
}
