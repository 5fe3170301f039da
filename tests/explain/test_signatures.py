"""Every signature matches its own test lines, is reached through its words, and names what exists."""

from __future__ import annotations

import re

import pytest

from envdoctor.catalog import find
from envdoctor.explain.cuda_errors import cuda_error
from envdoctor.explain.scan import scan
from envdoctor.explain.signatures import Signature, all_signatures, compiled


@pytest.mark.parametrize("signature", all_signatures(), ids=lambda s: s.id)
def test_a_signature_matches_each_of_its_test_lines(signature: Signature) -> None:
    assert signature.tests
    for line in signature.tests:
        sightings, _ = scan([line.encode()])
        assert sightings.of(signature.id), line


@pytest.mark.parametrize("signature", all_signatures(), ids=lambda s: s.id)
def test_a_signature_means_one_thing_and_names_what_the_catalogue_has(signature: Signature) -> None:
    assert sum(map(bool, (signature.code, signature.fact, signature.noise))) == 1
    assert signature.seen_in
    for code in (signature.code, *signature.alternatives):
        assert not code or find(code), code


@pytest.mark.parametrize("signature", all_signatures(), ids=lambda s: s.id)
def test_what_a_signature_says_uses_only_groups_that_it_has(signature: Signature) -> None:
    groups = {name for search in compiled(signature.id).searches for name in search.groupindex}
    assert set(re.findall(r"{(\w+)}", signature.says)) <= groups


def test_identifiers_are_unique() -> None:
    identifiers = [signature.id for signature in all_signatures()]
    assert len(set(identifiers)) == len(identifiers)


def test_words_are_in_lower_case_as_the_lines_are_when_they_are_looked_for() -> None:
    for signature in all_signatures():
        assert all(word == word.lower() and not set("#>|") & set(word) for word in signature.words)


def test_a_space_in_a_pattern_stands_for_any_white_space_and_for_marks_of_quotation() -> None:
    sightings, _ = scan([b"Could not\n#   get kernel   mode driver version"])
    assert [s.line for s in sightings.of("noise-kernel-driver-version-unreadable")] == [1]


def test_the_three_ways_to_name_a_cuda_error_agree() -> None:
    assert cuda_error(number="100") == cuda_error(name="cudaErrorNoDevice")
    assert cuda_error(number="100") == cuda_error(text="no CUDA-capable  device is detected")
    assert cuda_error(number="123456") is None
