"""How a release is written down and read back, whatever is missing of it."""

import base64
import json
import os
from typing import Any

import pytest

from pipeline.stage import StageFailed
from stages.clients.kubernetes.records import (
    Head,
    Part,
    end_of_part,
    overlaid,
    read_head,
    read_parts,
    write_head,
    write_part,
)

HEAD = Head(target="his", number=12, run="backend#12", run_id="01J", commit="c0ffee", parts=("deploy[a]",))


def config(name: str, value: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "n"}, "data": {"k": value}}


def part(*objects: dict[str, Any], name: str = "deploy[a]", number: int = 12, **more: Any) -> Part:
    return Part(name=name, number=number, objects=objects, **more)


def test_a_head_is_read_as_it_was_written() -> None:
    secret = write_head(HEAD, "n", "77")
    assert read_head(secret) == HEAD
    assert secret["metadata"]["name"] == "pipe-release.his.12"
    assert secret["metadata"]["resourceVersion"] == "77"
    assert secret["metadata"]["labels"]["pipe-ci/record"] == "head"


def test_a_head_of_a_newer_version_can_be_read() -> None:
    data = base64.b64encode(json.dumps({**HEAD.model_dump(), "news": 1}).encode()).decode()
    assert read_head({"data": {"head": data}}) == HEAD


@pytest.mark.parametrize("data", ["", "bm8=", "no"])
def test_a_head_that_somebody_has_damaged_is_named_with_a_way_out(data: str) -> None:
    secret = {**write_head(HEAD, "n"), "data": {"head": data}}
    with pytest.raises(
        StageFailed, match=r"Secret n/pipe-release\.his\.12 is no record .* `kubectl -n n delete secret"
    ):
        read_head(secret)


def test_a_part_is_read_as_it_was_written_in_any_order_of_its_secrets() -> None:
    noise = config("big", os.urandom(5000).hex())
    secrets = write_part(part(noise, config("c", "1")), HEAD, "n", chunk=1000)
    assert len(secrets) > 3
    (found,) = read_parts(reversed(secrets))
    assert found.objects == (noise, config("c", "1"))
    assert found.pieces == len(secrets)


def test_a_secret_holds_no_more_than_the_cluster_takes() -> None:
    secrets = write_part(part(config("big", os.urandom(1_200_000).hex())), HEAD, "n")
    assert len(secrets) > 1
    assert all(sum(len(base64.b64decode(text)) for text in each["data"].values()) < 1 << 20 for each in secrets)


def test_a_part_that_lacks_a_piece_is_left_out_and_the_others_are_read() -> None:
    torn = write_part(part(config("big", os.urandom(3000).hex())), HEAD, "n", chunk=1000)
    whole = write_part(part(config("c", "1"), name="deploy[b]"), HEAD, "n")
    assert [each.name for each in read_parts([*torn[:-1], *whole])] == ["deploy[b]"]
    assert [each.name for each in read_parts([*torn[1:], *whole])] == ["deploy[b]"]


def test_pieces_that_a_longer_earlier_attempt_left_are_not_read() -> None:
    longer = write_part(part(config("big", os.urandom(3000).hex())), HEAD, "n", chunk=1000)
    shorter = write_part(part(config("c", "1")), HEAD, "n", chunk=1000)
    (found,) = read_parts([*shorter, *longer[len(shorter) :]])
    assert found.objects == (config("c", "1"),)


def test_the_end_of_a_part_changes_nothing_of_what_it_applied() -> None:
    (secret,) = write_part(part(config("c", "1")), HEAD, "n")
    ended = part(config("c", "1"), outcome="failed", message="no")
    secret["data"] |= end_of_part(ended)["data"]
    (found,) = read_parts([secret])
    assert (found.outcome, found.message, found.objects) == ("failed", "no", (config("c", "1"),))


def test_an_object_of_two_parts_is_the_newer_ones() -> None:
    both = [part(config("c", "new"), number=12), part(config("c", "old"), number=11, name="deploy[b]")]
    assert [thing["data"] for thing in overlaid(both).values()] == [{"k": "new"}]


@pytest.mark.parametrize("name", ["deploy[a,b]", "x" * 300, "deploy[Ünïcode]", "deploy[a.b_c]"])
def test_any_leaf_has_a_name_that_an_object_may_have(name: str) -> None:
    (secret,) = write_part(part(config("c", "1"), name=name), HEAD, "n")
    label = secret["metadata"]["name"]
    assert len(label) < 253
    assert all(piece and piece[0].isalnum() and piece[-1].isalnum() for piece in label.split("."))
    assert label == label.lower()


def test_leaves_with_similar_names_have_records_of_their_own() -> None:
    names = [
        write_part(part(config("c", "1"), name=name), HEAD, "n")[0]["metadata"]["name"] for name in ("d[a.b]", "d[a-b]")
    ]
    assert len(set(names)) == 2
