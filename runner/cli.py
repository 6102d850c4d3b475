"""The command line: it reads the words, imports a command when it is asked for, and turns ends into exit codes."""

import errno
import os
import sys
import traceback
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from pipeline import __version__
from pipeline.errors import PipeError
from runner.guardian import Guardian
from runner.server.layout import Place

__all__ = ["main"]

USAGE, BUG = 2, 3


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="pipe")
def pipe() -> None:
    """Run CI/CD pipelines written in YAML: from git to a healthy Kubernetes, and the truth about it."""


file_argument = click.argument("file", type=click.Path())
pipelines_argument = click.argument("pipelines", nargs=-1)
params_option = click.option(
    "-p", "--param", "params", multiple=True, metavar="K=V", help="Give a parameter; PIPELINE.K=V to one pipeline."
)


jobs_option = click.option(
    "-j", "--jobs", type=click.IntRange(min=1), help="How many stages compute at once (default: cores)."
)
preflight_option = click.option("--no-preflight", "blind", is_flag=True, help="Do not look ahead first.")
output_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["auto", "tty", "plain", "json"]),
    default="auto",
    help="A live tree, whole lines, or the events as JSON lines.",
)


server_option = click.option(
    "--server",
    default="",
    envvar="PIPE_SERVER",
    metavar="URL",
    help="Of the team server there (default: PIPE_SERVER); `pipe login URL` first.",
)
secrets_option = click.option(
    "--secrets-fd", type=int, default=None, hidden=True, help="A descriptor by which the server hands secrets over."
)


mirror_option = click.option(
    "--mirror", default="", metavar="URL", help="Report the run's files to this server; PIPE_SERVER_TOKEN proves it."
)


def report_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--junit` and `--summary`; what is refused before anything starts is in the report as well."""

    @click.option("--junit", type=click.Path(), default="", metavar="PATH", help="Write junit.xml there too.")
    @click.option("--summary", type=click.Path(), default="", metavar="PATH", help="Write a page there too.")
    @wraps(command)
    def reporting(*given: Any, junit: str, **words: Any) -> Any:
        try:
            return command(*given, junit=junit, **words)
        except PipeError as error:
            if junit:
                from runner.reports.files import write_refusal

                write_refusal(junit, str(error))
            raise

    return reporting


@pipe.command()
@click.argument("file", type=click.Path(), default="")
@pipelines_argument
@params_option
@server_option
@click.option("--ref", default="", help="With --server: a branch, tag, commit or BRANCH@COMMIT, else the main branch.")
@click.option("-f", "--follow", is_flag=True, help="With --server: show it until it ends; its exit code is ours.")
@jobs_option
@click.option("--plan", "saved", type=click.Path(), default="", metavar="P", help="Run what `pipe plan --save P` kept.")
@preflight_option
@click.option("--fail-fast", is_flag=True, help="When a stage fails, cancel all others of its pipeline.")
@click.option("--source", default="", metavar="DIR", help="Build a copy of this working tree instead of a checkout.")
@click.option("--allow-dirty", is_flag=True, help="Let a run with --source deploy.")
@click.option(
    "--durability",
    type=click.Choice(["batched", "strict"]),
    default="batched",
    help="When power may fail: lose at most 50 ms without effects, or wait for the disk at every step.",
)
@click.option("--resume", is_flag=True, help="Of pipelines whose newest run died, go on with that one.")
@report_options
@mirror_option
@secrets_option
@output_option
@click.pass_obj
def run(guardian: Guardian | None, /, *, file: str, server: str, ref: str, follow: bool, **words: Any) -> int:
    """Run the pipelines of FILE, or those named, side by side. With --server FILE is the name of a project there."""
    if server and not file:
        raise click.UsageError("name a project of the server")
    if server:
        return _start(file, server, ref=ref, follow=follow, **words)
    if ref or follow:
        raise click.UsageError("--ref and --follow go with --server: a run here is shown anyway, as its checkouts say")
    from runner.commands.run import Options
    from runner.commands.run import run as run_command

    if bool(file) == bool(words["saved"]) or (words["saved"] and (words["params"] or words["source"])):
        raise click.UsageError("give a FILE, or --plan P alone: a plan that was approved takes no parameters")
    return run_command(Options(file, guardian=guardian, **words))


def _start(project: str, server: str, **words: Any) -> int:
    """Start runs there; how they run is the server's matter."""
    from dataclasses import fields

    from runner.commands.start import Options, start

    names = {field.name for field in fields(Options)}
    given = [name for name, value in words.items() if name not in names and value not in (None, False, "", "batched")]
    if given:
        called = {"saved": "plan", "blind": "no-preflight"}
        options = ", ".join(f"--{called.get(name, name).replace('_', '-')}" for name in given)
        raise click.UsageError(f"{options}: of runs on this machine alone, not with --server")
    return start(Options(server, project, **{name: value for name, value in words.items() if name in names}))


@pipe.command()
@click.argument("run", default="")
@jobs_option
@preflight_option
@report_options
@mirror_option
@secrets_option
@output_option
@click.pass_obj
def resume(guardian: Guardian | None, /, **words: Any) -> int:
    """Go on with RUN whose engine died. It is `backend#12`, else the newest; what has ended is not done again."""
    from runner.commands.resume import Options
    from runner.commands.resume import resume as resume_command

    return resume_command(Options(guardian=guardian, **words))


@pipe.command()
@click.argument("run")
@click.option("--from", "stages", multiple=True, metavar="STAGE", help="Only this stage or leaf, and what needs it.")
@click.option("--failed", is_flag=True, help="Only what did not succeed, and what needs it.")
@jobs_option
@preflight_option
@report_options
@output_option
@click.pass_obj
def rerun(guardian: Guardian | None, /, *, stages: tuple[str, ...], failed: bool, **words: Any) -> int:
    """Run RUN again under its number, all of it or a part. Its own plan is used; old attempts and their logs stay."""
    from runner.commands.resume import Again, Options
    from runner.commands.resume import resume as resume_command

    if stages and failed:
        raise click.UsageError("--from and --failed exclude each other")
    return resume_command(Options(again=Again(stages, failed), guardian=guardian, **words))


@pipe.command()
@file_argument
@pipelines_argument
@params_option
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.option("--live", is_flag=True, help="Ask git, registries and clusters what would fail. Changes nothing there.")
@click.option(
    "--save", default="", type=click.Path(), metavar="P", help="Look ahead, and keep the plan for `run --plan`."
)
def plan(file: str, pipelines: tuple[str, ...], params: tuple[str, ...], **words: Any) -> int:
    """Show what would run or be skipped, and why. Needs no network, unless --live, and starts nothing."""
    if words.pop("live") or words["save"]:
        from runner.commands.live import show as show_live

        return show_live(file, pipelines, params, **words)
    from runner.commands.plan import show

    return show(file, pipelines, params, as_json=words["as_json"])


@pipe.command()
@click.argument("files", nargs=-1, required=True, type=click.Path())
def check(files: tuple[str, ...]) -> int:
    """Say everything that is wrong with FILES."""
    from runner.commands.plan import check as check_files

    return check_files(files)


@pipe.command()
@click.argument("folder", default=".", type=click.Path())
def init(folder: str) -> int:
    """Write a first pipeline for the repository in FOLDER. Maven, npm and Dockerfiles are found."""
    from runner.commands.init import init as write

    return write(folder)


@pipe.command()
@click.argument("pipeline", default="")
@click.option("-n", "most", type=click.IntRange(min=1), default=20, help="How many (default: 20).")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@server_option
def runs(pipeline: str, most: int, server: str, *, as_json: bool) -> int:
    """List the newest runs: how each is, and why it is not green."""
    from runner.commands.runs import list_runs

    return list_runs(pipeline, most, server, as_json=as_json)


@pipe.command()
@click.argument("run", default="")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@server_option
def show(run: str, server: str, *, as_json: bool) -> int:
    """Show a run: its tree, its attempts, its critical path. RUN is `backend#12`; else the newest."""
    from runner.commands.show import show as show_run

    return show_run(run, server, as_json=as_json)


@pipe.command()
@click.argument("run", default="")
@click.option("--json", "as_json", is_flag=True, help="Print it as one JSON object.")
@click.option("--host", is_flag=True, help="Look at this machine instead: the CI host, and which docker it has.")
@server_option
def doctor(run: str, server: str, *, as_json: bool, host: bool) -> int:
    """Say why RUN failed: the one cause, what proves it, what to do, and what came of it. Else the newest that failed.

    It reads the run's own journal and logs, so it works when the cluster is gone too.
    """
    if host:
        if run or as_json:
            raise click.UsageError("--host looks at this machine, not at a run: leave RUN and --json out")
        from runner.commands.machine import machine

        return machine()
    from runner.commands.doctor import doctor as examine

    return examine(run, server, as_json=as_json)


@pipe.command()
@click.argument("run", default="")
@click.argument("stage", default="")
@click.option("--attempt", type=click.IntRange(min=1), default=None, help="An earlier attempt (default: the last).")
@click.option("-f", "--follow", is_flag=True, help="Go on while it grows.")
@click.option("--raw", is_flag=True, help="Every byte also on a terminal, which it may drive.")
@server_option
def logs(run: str, stage: str, attempt: int | None, server: str, *, follow: bool, raw: bool) -> int:
    """Print the log of a leaf of RUN, or of the whole run. One leaf's comes byte for byte where it is no terminal."""
    from runner.commands.logs import logs as print_logs

    return print_logs(run, stage, attempt or 0, server, follow=follow, raw=raw)


namespace_option = click.option("-n", "--namespace", default="", help="Where the releases are kept.")
context_option = click.option("--context", default="", help="The kubeconfig's context.")
kubeconfig_option = click.option(
    "--kubeconfig", metavar="PATH", help="The cluster, whatever the newest run or PIPE_KUBECONFIG says."
)


@pipe.command()
@click.argument("before")
@click.argument("after")
@namespace_option
@context_option
@kubeconfig_option
@server_option
def diff(before: str, after: str, server: str, **place: Any) -> int:
    """Say what differs between two runs, or two releases.

    Of runs, as in `backend#11`: parameters, commits, tools, digests, ends, times. Of releases, as in `his@11`: images,
    configuration, objects; of Secrets only which keys.
    """
    if "@" in before + after:
        from runner.commands.releases import diff_releases
        from runner.commands.targets import Where

        return diff_releases(before, after, Where(**place))
    from runner.commands.diff import diff as compare

    return compare(before, after, server)


@pipe.command()
@click.argument("target", default="")
@namespace_option
@context_option
@kubeconfig_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def releases(target: str, *, as_json: bool, **place: Any) -> int:
    """List the releases of TARGET. Which commit, who, why, and how each ended.

    The cluster is that of the newest run here with a release, else the one that PIPE_KUBECONFIG names.
    """
    from runner.commands.releases import list_releases
    from runner.commands.targets import Where

    return list_releases(target, Where(**place), as_json=as_json)


@pipe.command()
@click.argument("release", default="")
@click.option("--service", default="", metavar="NAME", help="Only this deploy: a leaf, or its key.")
@click.option("--past-irreversible", is_flag=True, help="Also over stages that cannot be undone.")
@namespace_option
@context_option
@kubeconfig_option
@output_option
@click.pass_obj
def rollback(
    guardian: Guardian | None, /, *, namespace: str, context: str, kubeconfig: str | None, **words: Any
) -> int:
    """Put RELEASE back, images and configuration. It is `his@11`; else the last good one before the newest.

    That is a run and a release of its own. Runs that began before it deploy nothing any more.
    """
    from runner.commands.releases import Wanted
    from runner.commands.releases import rollback as go_back
    from runner.commands.targets import Where

    return go_back(Wanted(guardian=guardian, **words), Where(namespace, context, kubeconfig))


@pipe.command()
@click.argument("run", default="")
@server_option
def cancel(run: str, server: str) -> int:
    """End RUN as Ctrl-C would, from another terminal or host. Without RUN: the one that is running.

    A run whose engine died is taken over for that: only its `finally` runs.
    """
    from runner.commands.cancel import cancel as cancel_run

    return cancel_run(run, server)


def _extra(module: str) -> Any:
    """Commands of the server, whose libraries are an extra."""
    try:
        return import_module(f"runner.commands.{module}")
    except ModuleNotFoundError as error:
        raise PipeError(f"there is no {error.name}: the server needs the extra `pipe-ci[server]`") from error


def _server() -> Any:
    return _extra("server")


def _people() -> Any:
    return _extra("people")


def _is_typed(context: click.Context, option: str) -> bool:
    return context.get_parameter_source(option) is click.core.ParameterSource.COMMANDLINE


def _database_url(context: click.Context, option: click.Parameter, url: str) -> str:
    """A URL in the list of processes must hold no password; one in the environment may."""
    from urllib.parse import urlsplit

    if _is_typed(context, option.name or "") and (":" in urlsplit(url).netloc.rpartition("@")[0] or "password=" in url):
        raise PipeError(
            "a password stands in --database, where everybody on this machine can read it: leave it out and give "
            "PGPASSWORD or ~/.pgpass, or put the whole URL into PIPE_DATABASE_URL"
        )
    return url


_state = click.option(
    "--state",
    type=click.Path(path_type=Path),
    default=Path(".pipe-server"),
    show_default=True,
    help="The server's own folder.",
)
_database = click.option(
    "--database",
    metavar="URL",
    default="",
    envvar="PIPE_DATABASE_URL",
    callback=_database_url,
    help="A PostgreSQL in place of a file: postgresql://USER@HOST/NAME. Also PIPE_DATABASE_URL.",
)


def _not_from_afar(context: click.Context, _: click.Parameter, url: str) -> None:
    """Say where a command works that somebody wants to speak to a server."""
    if url:
        raise PipeError(
            f"`{context.command_path}` has no --server: it works on the machine of the server, where --state names its "
            f"folder; from elsewhere there are the pages of {url.rstrip('/')}, and its API"
        )


_far = click.option("--server", metavar="URL", default="", hidden=True, expose_value=False, callback=_not_from_afar)


def state_option(command: Callable[..., int]) -> Callable[..., int]:
    """Where a server keeps what it knows: `--state` and `--database`, together as `state`."""

    @_far
    @_state
    @_database
    @wraps(command)
    def with_place(*, state: Path, database: str, **words: Any) -> int:
        return command(state=Place(state, database), **words)

    return with_place


@pipe.command()
@state_option
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True, help="The port.")
@click.option("--url", default="", metavar="URL", help="How people reach it, for links.")
@click.option(
    "--runs", "slots", type=click.IntRange(min=1), default=4, show_default=True, help="How many work at once."
)
@click.option("--pass", "passed_on", multiple=True, metavar="NAME", help="A variable that runs are to see too.")
@click.option(
    "--poll",
    "poll_every",
    type=click.IntRange(min=0),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="How often every repository is asked what no hook told; 0: never.",
)
@click.option(
    "--uids",
    default="",
    metavar="FIRST-LAST|USER|none",
    help="Whom runs are started as, each project as a user of its own (default: 200000-200999 where that works).",
)
@click.option("--group", "groups", multiple=True, metavar="NAME", help="A further group of these users.")
@click.option("--run-memory", "memory", default="", metavar="SIZE", help="The memory of a run: 512Mi, 8Gi.")
@click.option(
    "--run-processes",
    "processes",
    type=click.IntRange(min=64),
    default=4096,
    show_default=True,
    metavar="N",
    help="The processes of a project, where it is a user of its own.",
)
@click.option("--mirror", is_flag=True, help="Read of runs only what they report, as of those that are other users.")
@click.option("--nice", type=click.IntRange(0, 19), default=0, help="How far runs stand back for other programs.")
@click.option("--peer-url", default="", metavar="URL", help="How other servers on the same database reach it.")
@click.option(
    "--lost-after",
    type=click.IntRange(min=20),
    default=600,
    show_default=True,
    help="Seconds until runs of another server that is not heard of any more are given up.",
)
def serve(*, state: Place, memory: str, processes: int, nice: int, **words: Any) -> int:
    """Serve a team: what forges tell starts runs. Everybody can follow them by the API."""
    server = _server()
    bounds = server.Bounds(_bytes(memory), processes, nice)
    code: int = server.serve_folder(server.Options(state, bounds=bounds, **words))
    return code


def _bytes(size: str) -> int | None:
    from pydantic import ValidationError

    from pipeline.spec import Resources

    try:
        return Resources(memory=size or None).memory
    except ValidationError as error:
        raise PipeError(f"--run-memory: {error.errors()[0]['ctx']['error']}") from None


@pipe.group()
def cache() -> None:
    """Look at what outlives runs on this machine, and clear it."""


@cache.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a cache.")
def list_caches(*, as_json: bool) -> int:
    """List caches with their sizes and when they were used last: those of `cache:`, of Maven, npm and git."""
    from runner.commands.cache import list_caches as look

    return look(as_json=as_json)


@cache.command("clear")
@click.argument("names", nargs=-1)
def clear_caches(names: tuple[str, ...]) -> int:
    """Remove the caches NAMES, or all that are below them as `npm` or `maven`; without names everything."""
    from runner.commands.cache import clear_caches as clear

    return clear(names)


@pipe.group()
def secrets() -> None:
    """Say where the secrets of a file come from; keep those of a server's projects."""


@secrets.command("check")
@file_argument
@pipelines_argument
@params_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a secret.")
def check_secrets(file: str, pipelines: tuple[str, ...], params: tuple[str, ...], *, as_json: bool) -> int:
    """Say which secrets of FILE are found here and where, never what they are. 1 if one is missing."""
    from runner.commands.secrets import check_secrets as look

    return look(file, pipelines, params, as_json=as_json)


@secrets.command("set")
@click.argument("project")
@click.argument("name")
@state_option
@click.option("--kind", type=click.Choice(["text", "login", "file", "ssh"]), default="text", show_default=True)
@click.option("--username", default="", help="Of a login.")
def set_secret(project: str, name: str, *, state: Place, kind: str, username: str) -> int:
    """Keep a secret of a project. It is read from stdin, or asked for, and never shown again."""
    code: int = _server().set_secret(state, project, name, kind, username)
    return code


@secrets.command("list")
@click.argument("project")
@state_option
def list_secrets(project: str, *, state: Place) -> int:
    """List the names and kinds of a project's secrets."""
    code: int = _server().list_secrets(state, project)
    return code


@secrets.command("remove")
@click.argument("project")
@click.argument("name")
@state_option
def remove_secret(project: str, name: str, *, state: Place) -> int:
    """Forget a secret of a project."""
    code: int = _server().remove_secret(state, project, name)
    return code


@pipe.group()
def projects() -> None:
    """Add and list the repositories that a server knows."""


@projects.command("add")
@click.argument("name")
@click.argument("url")
@state_option
@click.option("--forge", default="generic", help="github, gitlab, gitee, gitea (Forgejo, Gogs), bitbucket or generic.")
@click.option("--file", default="pipeline.yaml", show_default=True, help="The pipeline file in the repository.")
@click.option("--username", default="", help="For git; the password comes from PIPE_GIT_PASSWORD.")
@click.option("--public-badge", is_flag=True, help="Let everybody see how its newest runs are, as a badge.")
@click.option("--hook-url", default="", help="How the forge reaches the server; by default where it listens.")
@click.option("--no-check", is_flag=True, help="Add it without a look at it.")
def add_project(*, state: Place, hook_url: str, no_check: bool, **words: Any) -> int:
    """Add a repository that can be read, and say what its forge has to be told.

    PIPE_GIT_PASSWORD is its password or token for git, PIPE_FORGE_TOKEN the token for the forge's API.
    """
    server = _server()
    keys = {"password": os.environ.get("PIPE_GIT_PASSWORD", ""), "token": os.environ.get("PIPE_FORGE_TOKEN", "")}
    code: int = server.add_project(state, server.Project(**words, **keys), hook_url, check=not no_check)
    return code


_most = click.IntRange(min=0)


@projects.command("keep")
@click.argument("name")
@state_option
@click.option("--runs", type=_most, default=None, metavar="N", help="Runs of each pipeline; 0: all.")
@click.option("--run-days", type=_most, default=None, metavar="N", help="For so many days; 0: for ever.")
@click.option("--logs", type=_most, default=None, metavar="N", help="Runs of each pipeline that keep their logs.")
@click.option("--log-days", type=_most, default=None, metavar="N", help="For so many days.")
@click.option("--artifacts", type=_most, default=None, metavar="N", help="Runs of each that keep their artifacts.")
@click.option("--artifact-days", type=_most, default=None, metavar="N", help="For so many days.")
def keep_of_project(name: str, *, state: Place, **given: int) -> int:
    """Say what a server keeps of a project's past. The newest run of a pipeline stays, and its last green one."""
    kinds = {"runs": "run", "logs": "log", "artifacts": "artifact"}
    changes = {what: (given[what], given[f"{one}_days"]) for what, one in kinds.items()}
    code: int = _server().keep_of_project(state, name, changes)
    return code


@projects.command("remove")
@click.argument("name")
@state_option
def remove_project(name: str, *, state: Place) -> int:
    """Forget a repository; its runs stay on disk."""
    code: int = _server().remove_project(state, name)
    return code


@projects.command("list")
@state_option
def list_projects(*, state: Place) -> int:
    """List them."""
    code: int = _server().list_projects(state)
    return code


@projects.command("set")
@click.argument("name")
@click.option("--trust", metavar="AUTHORS", help="Whose pull requests from forks run without approval: a,b.")
@click.option("--followers", metavar="PROJECTS", help="Projects that ends of its runs may start: a,b or *.")
@state_option
def change_project(name: str, trust: str | None, followers: str | None, *, state: Place) -> int:
    """Say who may do more than others; what is not given stays, and '' is nobody."""
    code: int = _server().change_project(state, name, _words(trust), _words(followers))
    return code


def _words(text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]


@pipe.command()
@click.argument("run", default="")
@server_option
@_state
@_database
@click.pass_context
def approve(context: click.Context, run: str, server: str, *, state: Path, database: str) -> int:
    """Let the commit of a fork run at a server; without RUN list what waits.

    RUN is an id or project/pipeline#number. It runs as it stands: look at its changes before. Without --server it is
    the server of this machine, whose folder --state names.
    """
    typed = {name for name in ("server", "state", "database") if _is_typed(context, name)}
    if "server" in typed and len(typed) > 1:
        raise click.UsageError("--server is another machine's server, --state and --database are of this one's")
    if server and not typed & {"state", "database"}:
        from runner.commands.approve import approve as approve_there

        return approve_there(run, server)
    code: int = _server().approve_run(Place(state, database), run)
    return code


@projects.command("badge")
@click.argument("name")
@click.option("--public/--private", required=True, help="Show it to everybody, or to those who may see the project.")
@state_option
def show_badge(name: str, *, state: Place, public: bool) -> int:
    """Say who may see the badges of a repository's pipelines."""
    code: int = _server().show_badge(state, name, public=public)
    return code


@pipe.group()
def notify() -> None:
    """Tell people of runs: by mail, DingTalk, WeCom, Feishu, Slack, a webhook and what else apprise knows."""


def _notify() -> Any:
    _server()
    from runner.commands import notify as commands

    return commands


def _of_target(command: Any) -> Any:
    return click.argument("project")(click.argument("name")(state_option(command)))


@notify.command("add")
@_of_target
@click.option("--on", "events", required=True, metavar="EVENTS", help="failed, fixed, waiting, ended: with commas.")
def add_target(project: str, name: str, *, state: Place, events: str) -> int:
    """Tell NAME of PROJECT's runs. Its URL comes from PIPE_NOTIFY_URL or stdin: it is a secret.

    failed: a run ended red. fixed: the first green one after a red one of its pipeline and ref. ended: every end.
    """
    code: int = _notify().add_target(state, project, name, [each.strip() for each in events.split(",")])
    return code


@notify.command("list")
@click.argument("project")
@state_option
def list_targets(project: str, *, state: Place) -> int:
    """List whom PROJECT tells, of what, and what was not taken."""
    code: int = _notify().list_targets(state, project)
    return code


@notify.command("remove")
@_of_target
def remove_target(project: str, name: str, *, state: Place) -> int:
    """Tell NAME nothing any more."""
    code: int = _notify().remove_target(state, project, name)
    return code


@notify.command("test")
@_of_target
def try_target(project: str, name: str, *, state: Place) -> int:
    """Send NAME a message now, and say whether it was taken."""
    code: int = _notify().try_target(state, project, name)
    return code


@notify.command("again")
@_of_target
def try_again(project: str, name: str, *, state: Place) -> int:
    """Try what was given up once more."""
    code: int = _notify().try_again(state, project, name)
    return code


@pipe.command()
@click.argument("project", default="")
@state_option
@click.option("-n", "most", type=click.IntRange(min=1), default=20, show_default=True, help="How many.")
def deliveries(project: str, *, state: Place, most: int) -> int:
    """List what came in at a server, and what became of it."""
    code: int = _server().list_deliveries(state, project, most)
    return code


class _Adding(click.Group):
    """A group whose words are those of `add` when they begin with no other command's name."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `add` in front where it was left out."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["add", *args]
        return super().parse_args(ctx, args)


role_help = "admin or member; for one project alone member@PROJECT."


@pipe.group(cls=_Adding)
def token() -> None:
    """Make, list and revoke tokens for a server's API: `pipe token NAME` makes one."""


@token.command("add")
@click.argument("name")
@state_option
@click.option("--role", default="member", show_default=True, help=role_help)
@click.option("--person", default="", help="Whose it is: it may do no more than they, and goes when they go.")
@click.option("--days", type=click.IntRange(min=1), help="How long it is good; without this, until it is revoked.")
def add_token(name: str, *, state: Place, role: str, person: str, days: int | None) -> int:
    """Make a token and print it, this once."""
    code: int = _people().add_token(state, name, role, person, days or 0)
    return code


@token.command("list")
@state_option
def list_tokens(*, state: Place) -> int:
    """List tokens: whose they are, what they may do, and when they were used."""
    code: int = _people().list_tokens(state)
    return code


@token.command("revoke")
@click.argument("id")
@state_option
def revoke_token(*, state: Place, id: str) -> int:  # noqa: A002 - what `pipe token list` shows
    """Revoke the token of that ID."""
    code: int = _people().revoke_token(state, id)
    return code


@pipe.command()
@state_option
@click.option("-n", "most", type=click.IntRange(min=1), default=50, show_default=True, help="How many.")
def audit(*, state: Place, most: int) -> int:
    """List who did what at a server, when, and from where."""
    code: int = _people().list_audit(state, most)
    return code


@pipe.group()
def people() -> None:
    """Add and list those who may use a server."""


@people.command("add")
@click.argument("name")
@state_option
@click.option("--role", "roles", multiple=True, default=["member"], show_default=True, help=role_help)
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="How people reach the server.")
def add_person(name: str, *, state: Place, roles: tuple[str, ...], url: str) -> int:
    """Add a person and print the link by which they choose a password."""
    code: int = _people().add(state, name, roles, url)
    return code


@people.command("link")
@click.argument("name")
@state_option
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="How people reach the server.")
def invite_person(name: str, *, state: Place, url: str) -> int:
    """Print a new link by which a person chooses a password."""
    code: int = _people().invite(state, name, url)
    return code


@people.command("list")
@state_option
def list_people(*, state: Place) -> int:
    """List them with their roles."""
    code: int = _people().list_people(state)
    return code


@people.command("remove")
@click.argument("name")
@state_option
def remove_person(name: str, *, state: Place) -> int:
    """Forget a person; what they are signed in with ends at once."""
    code: int = _people().remove(state, name)
    return code


@people.command("roles")
@click.argument("name")
@click.argument("roles", nargs=-1)
@state_option
def set_roles(name: str, roles: tuple[str, ...], *, state: Place) -> int:
    """Give a person these ROLES and no others: admin, member, or member@PROJECT."""
    code: int = _people().set_roles(state, name, roles)
    return code


@people.command("password")
@click.argument("name")
@state_option
def set_password(name: str, *, state: Place) -> int:
    """Set a person's password, asked for here or read from standard input; their sessions end."""
    code: int = _people().set_password(state, name)
    return code


@pipe.command()
@click.argument("server", envvar="PIPE_SERVER", metavar="URL")
def login(server: str) -> int:
    """Keep a token for the server at URL. It is asked for, or read from stdin."""
    from runner.commands.login import login as keep

    return keep(server)


@pipe.command()
@click.argument("server", envvar="PIPE_SERVER", metavar="URL")
def logout(server: str) -> int:
    """Forget the token for the server at URL."""
    from runner.commands.login import logout as forget

    return forget(server)


@pipe.command()
@click.argument("name", required=False)
def kinds(name: str | None) -> int:
    """List the kinds of stages, or the fields of one."""
    from runner.commands.kinds import show

    return show(name)


@pipe.command()
def schema() -> int:
    """Print the JSON schema of pipeline files, for editors."""
    from runner.commands.kinds import print_schema

    return print_schema()


def main(guardian: Guardian | None = None) -> int:
    """Run the command line; the exit code: 0 green, 1 red, 2 the file or the call is wrong, 3 a bug of ours."""
    try:
        return pipe.main(obj=guardian, prog_name="pipe", standalone_mode=False) or 0
    except PipeError as error:
        click.echo(error, err=True)
        return USAGE
    except click.ClickException as error:
        error.show()
        return USAGE
    except (click.Abort, KeyboardInterrupt):
        return 130
    except OSError as error:
        return _of_host(error)
    except Exception:  # noqa: BLE001 - the one door through which a bug leaves
        return _bug()


def _of_host(error: OSError) -> int:
    """Nobody reads any more, or a disk is full; anything else should have been caught where it can be explained."""
    if error.errno == errno.ENOSPC:
        click.echo(f"pipe: {error.filename or 'where its output goes'}: {error.strerror}", err=True)
    return 1 if error.errno in (errno.ENOSPC, errno.EPIPE) else _bug()


def _bug() -> int:
    click.echo(f"{traceback.format_exc()}\nBUG in pipe {__version__}: please report the lines above", err=True)
    click.echo(f"python {sys.version.split()[0]} on {sys.platform}", err=True)
    return BUG
