"""The verdict as JUnit XML, which CI systems show as test cases."""

from __future__ import annotations

from xml.etree import ElementTree

from hubbub.loadtest.verdict import PASS_SUCCESS, PASS_THROUGHPUT, Result, Side


def junit(results: list[Result]) -> bytes:
    """A test suite for each run; a test case for each thing that the verdict depends on."""
    root = ElementTree.Element("testsuites", name="hubbub perftest")
    for number, result in enumerate(results, 1):
        cases = _cases(result)
        failures = sum(why is not None for _, why in cases)
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=f"run {number}",
            tests=str(len(cases)),
            failures=str(failures),
            time=f"{result.duration:.3f}",
        )
        for name, why in cases:
            case = ElementTree.SubElement(suite, "testcase", classname="hubbub.perftest", name=name)
            if why is not None:
                ElementTree.SubElement(case, "failure", message=why).text = why
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _cases(result: Result) -> list[tuple[str, str | None]]:
    cases: list[tuple[str, str | None]] = []
    for name, side in (("writes", result.writes), ("reads", result.reads)):
        cases.append((f"{name} reach half of their target, over 95 % succeed", None if side.passed else _short(side)))
    cases.append(("the load generator was not the limit", result.generator.limit))
    cases += [(check.requirement, None if check.held else f"measured {check.measured}") for check in result.checks]
    if result.findings is not None:
        faults = result.findings.faults
        why = f"{faults} faults: {'; '.join(result.findings.examples)}" if faults else None
        cases.append(("all that was acknowledged is stored", why))
    return cases


def _short(side: Side) -> str:
    return (
        f"{side.throughput:.2f} of {side.target:g} a second ({PASS_THROUGHPUT:.0%} needed), "
        f"{side.success_rate:.2%} succeeded (over {PASS_SUCCESS:.0%} needed)"
    )
