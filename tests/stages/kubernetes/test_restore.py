"""What going back to a release means: pure functions of its records."""

from typing import Any

import pytest

from stages.clients.kubernetes.compare import compare
from stages.clients.kubernetes.ledger import last_good, passed_irreversible, state_after, unsettled
from stages.clients.kubernetes.objects import RUN
from stages.clients.kubernetes.records import Head, Part
from stages.clients.kubernetes.restore import Plan, plan_restore
from stages.rollback import _before_the_newest


def thing(kind: str, name: str, value: str = "1", run: str = "r", version: str = "v1") -> dict[str, Any]:
    metadata = {"name": name, "namespace": "n", "annotations": {RUN: run}}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "data": {"k": value}}


def part(name: str, number: int, *objects: dict[str, Any], created: tuple[str, ...] = ()) -> Part:
    refs = tuple(
        (each["apiVersion"], each["kind"], "n", each["metadata"]["name"])
        for each in objects
        if each["metadata"]["name"] in created
    )
    return Part(
        turn=number,
        name=name,
        number=number,
        objects=objects,
        created=refs,
        run_id=f"run{number}",
        started=f"{number}{name}",
    )


def head(number: int, outcome: str = "complete", **more: Any) -> Head:
    more = {"turn": number, **more}
    return Head(target="t", number=number, run="p#1", run_id=f"run{number}", outcome=outcome, **more)


GOOD = head(1, state={"d[a]": 1, "d[b]": 1})
PARTS = [part("d[a]", 1, thing("ConfigMap", "a")), part("d[b]", 1, thing("ConfigMap", "b"))]


def plan(*later: Part, to: Head = GOOD, **more: Any) -> Plan:
    return plan_restore(to, [*PARTS, *later], ["run2", "run3"], run="now", **more)


def names(found: Plan) -> list[str]:
    return [service.name for service in found.services]


def test_only_what_a_later_release_touched_goes_back_the_last_first() -> None:
    found = plan(part("d[a]", 2, thing("ConfigMap", "a", "2")), part("d[b]", 2, thing("ConfigMap", "b", "2")))
    assert names(found) == ["d[b]", "d[a]"]
    assert names(plan(part("d[b]", 2, thing("ConfigMap", "b", "2")))) == ["d[b]"]
    assert names(plan()) == []


def test_a_person_who_asks_gets_everything_back() -> None:
    assert set(names(plan(everything=True))) == {"d[a]", "d[b]"}


def test_what_is_written_is_what_the_good_release_applied_with_the_mark_of_this_run() -> None:
    (service,) = plan(part("d[a]", 2, thing("ConfigMap", "a", "2"))).services
    (manifest,) = service.manifests
    assert manifest.object == thing("ConfigMap", "a", "1", run="now")
    assert PARTS[0].objects[0]["metadata"]["annotations"] == {RUN: "r"}


def test_a_service_goes_back_on_the_terms_of_its_newest_deploy() -> None:
    later = part("d[a]", 2, thing("ConfigMap", "a", "2")).model_copy(update={"on_conflict": "force"})
    found = plan(later, part("d[b]", 2, thing("ConfigMap", "b", "2")))
    assert {service.name: service.terms.on_conflict for service in found.services} == {"d[a]": "force", "d[b]": "fail"}


def test_a_service_that_goes_back_waits_for_what_its_old_pods_need_and_as_long_as_they_may() -> None:
    parts = [each.model_copy(update={"waits_for": ("nacos",), "wait": 900.0}) for each in PARTS[:1]] + PARTS[1:]
    later = [part("d[a]", 2, thing("ConfigMap", "a", "2")).model_copy(update={"waits_for": ("mysql",), "wait": 9.0})]
    found = plan_restore(GOOD, [*parts, *later], [], run="now", everything=True)
    said = {service.name: (service.terms.waits_for, service.terms.wait) for service in found.services}
    assert said == {"d[a]": (("nacos",), 900.0), "d[b]": ((), 300.0)}


def test_one_service_is_named_by_its_leaf_or_its_key() -> None:
    later = [part("d[a]", 2, thing("ConfigMap", "a", "2")), part("d[b]", 2, thing("ConfigMap", "b", "2"))]
    assert names(plan(*later, only="b")) == names(plan(*later, only="d[b]")) == ["d[b]"]


def test_what_later_releases_made_is_removed_and_what_was_there_before_is_not() -> None:
    later = part(
        "d[a]", 2, thing("ConfigMap", "a"), thing("ConfigMap", "new"), thing("ConfigMap", "old"), created=("new",)
    )
    found = plan(later)
    assert [ref.name for ref in found.remove] == ["new"]
    assert found.runs == {"run2", "run3"}


def test_what_a_service_made_that_the_good_release_does_not_know_is_removed_too() -> None:
    found = plan(part("d[c]", 2, thing("ConfigMap", "c"), created=("c",)))
    assert (names(found), [ref.name for ref in found.remove]) == ([], ["c"])


def test_jobs_claims_namespaces_and_definitions_stay_and_that_is_said() -> None:
    kinds = ["Job", "Pod", "PersistentVolumeClaim", "PersistentVolume", "Namespace", "CustomResourceDefinition"]
    things = [thing(kind, kind.lower()) for kind in kinds]
    found = plan(part("d[a]", 2, *things, created=tuple(kind.lower() for kind in kinds)))
    assert found.remove == ()
    assert names(found) == ["d[a]"]
    assert len(found.words) == len(kinds)
    assert "Job n/job is not undone: what it did stays" in found.words


def test_a_job_of_the_good_release_is_not_run_again() -> None:
    to = head(1, state={"d[a]": 1})
    parts = [part("d[a]", 1, thing("Job", "j"), thing("ConfigMap", "a")), part("d[a]", 2, thing("Job", "j"))]
    found = plan_restore(to, parts, [], run="now")
    assert [manifest.ref.kind for service in found.services for manifest in service.manifests] == ["ConfigMap"]
    assert found.words == ()


def test_the_state_of_a_release_goes_back_to_parts_of_several_releases() -> None:
    to = head(2, state={"d[a]": 2, "d[b]": 1})
    parts = [*PARTS, part("d[a]", 2, thing("ConfigMap", "a", "2")), part("d[b]", 3, thing("ConfigMap", "b", "3"))]
    (service,) = plan_restore(to, parts, ["run3"], run="now").services
    assert service.manifests[0].object["data"] == {"k": "1"}
    everything = plan_restore(to, parts, ["run3"], run="now", everything=True)
    assert {each.name: each.manifests[0].object["data"]["k"] for each in everything.services} == {
        "d[a]": "2",
        "d[b]": "1",
    }


def test_the_last_good_release_is_the_newest_complete_one_before() -> None:
    heads = {each.number: each for each in (head(1), head(2, "partial"), head(3), head(4, "rolled back"), head(5, ""))}
    assert [(last_good(heads, head(at)) or head(0)).number for at in (1, 2, 4, 6)] == [0, 1, 3, 3]


def test_releases_are_in_the_order_of_their_turns_not_of_their_numbers() -> None:
    """The fourth failed and went back as the sixth; the fifth had its number before that, and its turn after."""
    heads = {1: GOOD, 4: head(4, "rolled back"), 6: head(6, turn=4, restores=1, state=GOOD.state), 5: head(5, turn=5)}
    assert (last_good(heads, head(7, turn=6)) or GOOD).number == 5
    assert (last_good(heads, heads[5]) or GOOD).number == 6
    fifth = part("d[a]", 5, thing("ConfigMap", "a", "5"))
    assert names(plan_restore(heads[6], [*PARTS, fifth], ["run5"], run="now")) == ["d[a]"]


def test_the_state_after_a_release_is_that_before_it_with_what_it_deployed() -> None:
    heads = {1: GOOD, 2: head(2, "rolled back", state={"d[a]": 2}), 3: head(3, "partial", state={"d[a]": 3, "d[b]": 1})}
    assert state_after(heads, head(2), ["d[b]"]) == {"d[a]": 1, "d[b]": 2}
    assert state_after(heads, head(4), ["d[c]"]) == {"d[a]": 3, "d[b]": 1, "d[c]": 4}
    assert state_after({}, head(1), ["d[a]"]) == {"d[a]": 1}


def test_a_release_that_somebody_has_gone_back_from_is_none_to_go_back_to() -> None:
    heads = {1: GOOD, 2: head(2, undone_by=3), 3: head(3, "partial", restores=1)}
    assert (last_good(heads, heads[3]) or heads[3]).number == 1
    assert (last_good(heads, head(4)) or heads[3]).number == 1


@pytest.mark.parametrize("outcome", ["partial", ""])
def test_a_way_back_that_did_not_come_to_its_end_is_the_next_one_again(outcome: str) -> None:
    heads = {1: head(1), 2: head(2), 3: head(3, outcome, restores=1)}
    assert (_before_the_newest(heads) or heads[3]).number == 1


def test_a_release_that_says_nothing_of_the_target_does_not_empty_it() -> None:
    heads = {1: GOOD, 2: head(2, "partial")}
    assert state_after(heads, head(3), ["d[b]"]) == {"d[a]": 1, "d[b]": 3}


def test_what_was_begun_and_never_done_goes_back_too_though_a_complete_release_came_after_it() -> None:
    heads = {1: GOOD, 2: head(2, "partial", state={"d[a]": 2, "d[b]": 1}), 3: head(3, state={"d[a]": 3, "d[b]": 1})}
    parts = [
        *PARTS,
        part("d[b]", 2, thing("ConfigMap", "b", "2"), thing("ConfigMap", "new"), created=("new",)),
        part("d[a]", 3, thing("ConfigMap", "a", "3")),
        part("d[a]", 4, thing("ConfigMap", "a", "4")),
    ]
    assert unsettled(heads) == [2]
    found = plan_restore(heads[3], parts, [], run="now")
    assert {each.name: each.manifests[0].object["data"]["k"] for each in found.services} == {"d[a]": "3", "d[b]": "1"}
    assert [ref.name for ref in found.remove] == ["new"]


def test_what_was_gone_back_from_is_settled_if_everything_went_back() -> None:
    undone = head(2, "rolled back", undone_by=3)
    assert unsettled({1: GOOD, 2: undone, 3: head(3, restores=1)}) == []
    assert unsettled({1: GOOD, 2: undone, 3: head(3, "partial", restores=1)}) == [2, 3]


def test_a_deploy_whose_record_is_gone_is_named_and_nothing_that_it_may_need_is_removed() -> None:
    later = part("d[a]", 2, thing("ConfigMap", "a", "2"), thing("ConfigMap", "new"), created=("new",))
    found = plan_restore(GOOD, [PARTS[1], later], [], run="now")
    assert (found.lost, found.remove) == (("d[a]",), ())


@pytest.mark.parametrize("turn", [2, 0])
def test_what_cannot_be_undone_counts_in_every_later_release_also_in_one_that_deployed_nothing(turn: int) -> None:
    heads = {1: head(1, irreversible=("old",)), 2: head(2, "", turn=turn, irreversible=("migrate",)), 3: head(3)}
    assert passed_irreversible(heads, heads[1]) == ["migrate in t@2"]
    assert passed_irreversible(heads, heads[3]) == []


def test_a_run_that_goes_back_by_itself_does_not_mind_what_a_newer_run_may_migrate() -> None:
    heads = {1: head(1), 2: head(2, "", irreversible=("migrate",)), 3: head(3, "", turn=0, irreversible=("later",))}
    assert passed_irreversible(heads, heads[1], 2) == ["migrate in t@2"]
    assert passed_irreversible(heads, heads[1]) == ["migrate in t@2", "later in t@3"]


# -- comparing -------------------------------------------------------------------------------------


def workload(image: str, **annotations: str) -> dict[str, Any]:
    template = {"metadata": {"annotations": annotations}, "spec": {"containers": [{"name": "app", "image": image}]}}
    return {**thing("Deployment", "w", version="apps/v1"), "spec": {"replicas": 1, "template": template}}


def test_images_are_compared_by_container_and_marks_are_no_difference() -> None:
    before = [part("d", 1, workload("r/a@sha256:1", **{"pipe-ci/config": "x"}))]
    after = [part("d", 2, workload("r/a@sha256:2", **{"pipe-ci/config": "y"}))]
    assert compare(before, after) == ["Deployment n/w: image of app: r/a@sha256:1 → r/a@sha256:2"]


def test_configuration_is_compared_by_key_and_secrets_without_their_values() -> None:
    before = [
        part("d", 1, thing("ConfigMap", "c", "one"), thing("Secret", "s", "aHVudGVyMg=="), thing("ConfigMap", "x"))
    ]
    after = [
        part("d", 2, thing("ConfigMap", "c", "two"), thing("Secret", "s", "aHVudGVyMw=="), thing("ConfigMap", "y"))
    ]
    assert compare(before, after) == [
        "ConfigMap n/c: data.k: one → two",
        "Secret n/s: key k: changed",
        "ConfigMap n/x: left out",
        "ConfigMap n/y: added",
    ]


def test_the_same_is_no_difference() -> None:
    assert (
        compare([part("d", 1, thing("ConfigMap", "c", run="1"))], [part("d", 2, thing("ConfigMap", "c", run="2"))])
        == []
    )


def test_a_field_that_is_called_image_and_is_none_of_a_container_is_compared_like_any_other() -> None:
    before, after = thing("Cluster", "pg"), thing("Cluster", "pg")
    before["data"], after["data"] = {"image": "pg:15"}, {"image": "pg:16"}
    assert compare([part("d", 1, before)], [part("d", 2, after)]) == ["Cluster n/pg: data.image: pg:15 → pg:16"]
