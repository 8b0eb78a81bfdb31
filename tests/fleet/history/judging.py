"""What no history of a fleet may have. Pure: the same history has the same violations."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise

from tests.fleet.history.operations import FOR_GOOD, GAVE_UP, Both, Happened, History, Kind, Operation, Outcome, Run
from tests.fleet.history.planning import Fault

SLACK = 2.0  # seconds by which `recoveredFrom` may be rounded
PAUSED = 1.5  # seconds for which a host that was stopped goes on, until its watchdog has frozen it
SLOW = 20.0  # seconds that an answer may take while a host drains
SAYS_WHY = ("host_lost", "volume_lost")  # reasons with which a session may refuse for good


@dataclass(frozen=True, slots=True)
class Violation:
    rule: str
    session: str  # or the key, or the host
    what: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.session}: {self.what}"


@dataclass(frozen=True, slots=True)
class _Execute:
    """An acknowledged one."""

    line: str
    run: Run


class _Sessions:
    """The operations of each session."""

    def __init__(self, history: History) -> None:
        self.listed = history.listed
        self.by_session: dict[str, list[Operation]] = defaultdict(list)
        for operation in history.operations:
            if operation.session:
                self.by_session[operation.session].append(operation)
        self.created = {each.session: each for each in self._all(history, Kind.CREATE) if each.session}
        taken = [each for each in self._all(history, Kind.SNAPSHOT) if each.snapshot]
        self.snapshots = {each.snapshot: replace(each, begin=self._asked(each)) for each in taken}

    def of(self, session: str, kind: Kind, *outcomes: Outcome) -> list[Operation]:
        """`outcomes`: by default all."""
        wanted = outcomes or tuple(Outcome)
        return [each for each in self.by_session[session] if each.kind is kind and each.outcome in wanted]

    def _asked(self, snapshot: Operation) -> float:
        """When it may have been taken at the earliest: a request that is sent again with its key gets the first one."""
        same = (each for each in self.of(snapshot.session, Kind.SNAPSHOT) if each.key and each.key == snapshot.key)
        return min((each.begin for each in same), default=snapshot.begin)

    def executes(self, session: str) -> list[_Execute]:
        """In the order of their begins."""
        found = (each for each in self.of(session, Kind.EXECUTE, Outcome.OK) if each.run is not None)
        return sorted((_Execute(each.line, each.run) for each in found if each.run), key=lambda each: each.run.began)

    def recovers(self, session: str) -> list[Operation]:
        """Those that may have happened."""
        return self.of(session, Kind.RECOVER, Outcome.OK, Outcome.UNKNOWN)

    def origin(self, session: str) -> Operation | None:
        """The snapshot that it was created from."""
        created = self.created.get(session)
        return self.snapshots.get(created.snapshot) if created and created.snapshot else None

    def sent(self, session: str) -> dict[str, Operation]:
        """All lines that may be in its file, with those of its origin."""
        origin = self.origin(session)
        inherited = self.sent(origin.session) if origin else {}
        own = sorted(self.of(session, Kind.EXECUTE), key=lambda each: each.outcome is not Outcome.REFUSED)
        return {**inherited, **{each.line: each for each in own}}  # a line is refused if each of its requests was

    @staticmethod
    def _all(history: History, kind: Kind) -> Iterator[Operation]:
        return (each for each in history.operations if each.kind is kind and each.outcome is Outcome.OK)


def violations(history: History) -> list[Violation]:
    sessions = _Sessions(history)
    found = [*_keys(history)]
    for session in sorted(sessions.by_session):
        for rule in (_places, _contents, _losses, _forks, _snapshots, _existence, _recoveries, _moves, _spans, _ends):
            found += rule(session, sessions)
    return [*found, *_both(history), *_drains(history), *_takeovers(history)]


def unanswered(history: History) -> list[str]:
    """Sessions that refuse for good, and say why: these are no violations."""
    last = _last_finals(history.operations)
    return [session for session, each in last.items() if each.outcome is not Outcome.OK and _says_why(each)]


def _keys(history: History) -> Iterator[Violation]:
    """Each idempotency key makes one session, and a refused create none."""
    made: dict[str, set[str]] = defaultdict(set)
    outcomes: dict[str, set[Outcome]] = defaultdict(set)
    for each in history.operations:
        if each.kind is Kind.CREATE:
            outcomes[each.key].add(each.outcome)
            if each.session:
                made[each.key].add(each.session)
    for session, key in history.listed.items():
        made[key].add(session)
    for key, sessions in made.items():
        if len(sessions) > 1:
            yield Violation("one key, one session", key, f"it made {sorted(sessions)}")
        if outcomes[key] == {Outcome.REFUSED}:
            yield Violation("a refused create makes nothing", key, f"it made {sorted(sessions)}")
    keys: dict[str, set[str]] = defaultdict(set)
    for key, sessions in made.items():
        for session in sessions:
            keys[session].add(key)
    for session, some in keys.items():
        if len(some) > 1:
            yield Violation("one key, one session", session, f"it answered to {sorted(some)}")


def _places(session: str, sessions: _Sessions) -> Iterator[Violation]:
    """No session runs on two hosts at a time with both acknowledged."""
    for one, other in combinations(sessions.executes(session), 2):
        if one.run.place != other.run.place and one.run.began < other.run.ended and other.run.began < one.run.ended:
            what = f"{one.line} on {one.run.place} while {other.line} on {other.run.place}"
            yield Violation("one host at a time", session, what)


def _contents(session: str, sessions: _Sessions) -> Iterator[Violation]:
    """A file has its own line and lines that were sent, each once, and none that was refused."""
    sent = sessions.sent(session)
    seen: Counter[str] = Counter()
    for execute in sessions.executes(session):
        lines = Counter(execute.run.lines)
        if execute.line not in lines:
            yield Violation("a run reads what it wrote", session, execute.line)
        seen |= lines  # the most that one of them saw
    for line, count in seen.items():
        if count > 1:
            yield Violation("a run happens once", session, f"{line} is there {count} times")
        if line not in sent:
            yield Violation("a file has what was written", session, f"nobody has written {line!r}")
        elif sent[line].outcome is Outcome.REFUSED and not _was_deleted_meanwhile(sent[line], sessions):
            yield Violation("a refused run does nothing", session, f"{line} was refused ({sent[line].why})")


def _was_deleted_meanwhile(refused: Operation, sessions: _Sessions) -> bool:
    """A run that a delete ends is not found either, and may have done something."""
    deletes = sessions.of(refused.session, Kind.DELETE)
    return refused.why.startswith("404") and any(refused.begin < each.end for each in deletes)


def _losses(session: str, sessions: _Sessions) -> Iterator[Violation]:
    """What was acknowledged stays, unless a recovery says that it is older."""
    executes, recovers = sessions.executes(session), sessions.recovers(session)
    told: set[str] = set()
    for earlier, later in combinations(executes, 2):
        if earlier.run.ended > later.run.began or earlier.line in later.run.lines or earlier.line in told:
            continue
        between = [each for each in recovers if each.end > earlier.run.began and each.begin < later.run.ended]
        if any(_admits(each, earlier) for each in between):
            continue
        told.add(earlier.line)
        rule = "a recovery is as old as it says" if between else "what was acknowledged stays"
        asleep = any(
            each.begin > earlier.run.began and each.end < later.run.ended
            for each in sessions.of(session, Kind.SLEEP, Outcome.OK)
        )
        yield Violation(rule, session, f"{later.line} misses {earlier.line}" + (", which slept" if asleep else ""))


def _admits(recover: Operation, lost: _Execute) -> bool:
    """Whether the answer says that this may be lost."""
    return recover.recovered_from is None or lost.run.ended > recover.recovered_from - SLACK


def _forks(session: str, sessions: _Sessions) -> Iterator[Violation]:
    """A file only grows, as it can on one host alone."""
    recovers = sessions.recovers(session)
    for earlier, later in combinations(sessions.executes(session), 2):
        if earlier.run.ended > later.run.began:
            continue
        if any(each.end > earlier.run.began and each.begin < later.run.ended for each in recovers):
            continue
        if set(earlier.run.lines) <= set(later.run.lines) and not _begins_with(later.run.lines, earlier.run.lines):
            yield Violation("a file only grows", session, f"{later.line} saw another order than {earlier.line}")
            return


def _begins_with(lines: Sequence[str], start: Sequence[str]) -> bool:
    return lines[: len(start)] == start


def _snapshots(session: str, sessions: _Sessions) -> Iterator[Violation]:
    """A snapshot has what was acknowledged before it, and nothing that was sent after it."""
    origin = sessions.origin(session)
    executes = sessions.executes(session)
    if origin is None or not executes:
        return
    lines = set(executes[0].run.lines)
    recovers = sessions.recovers(origin.session)
    own = sessions.recovers(session)
    for each in sessions.executes(origin.session):
        if each.run.ended > origin.begin or each.line in lines or own:
            continue
        if not any(r.end > each.run.began and r.begin < origin.end and _admits(r, each) for r in recovers):
            yield Violation("a snapshot has what was acknowledged", session, f"{origin.snapshot} misses {each.line}")
    first: dict[str, Operation] = {}  # a run that is sent again may have happened at the first time
    for sent in sorted(sessions.of(origin.session, Kind.EXECUTE), key=lambda one: one.begin):
        first.setdefault(sent.line, sent)
    for later in first.values():
        if later.begin > origin.end and later.line in lines:
            yield Violation("a snapshot never changes", session, f"{origin.snapshot} has {later.line}")


def _existence(session: str, sessions: _Sessions) -> Iterator[Violation]:
    """A session is there until somebody deletes it, and not any more then."""
    deletes = sessions.of(session, Kind.DELETE)
    acknowledged = [each.end for each in deletes if each.outcome is Outcome.OK]
    first = _first_of_keys(sessions.by_session[session])
    for each in sessions.by_session[session]:
        if acknowledged and each.outcome is Outcome.OK and each.begin > min(acknowledged):
            # a repeated request gets the first answer
            if each.kind is not Kind.CREATE and first.get(each.key, each.begin) >= min(acknowledged):
                yield Violation("a deleted session is gone", session, f"{each.kind} was answered on {each.host}")
                return
        elif each.why.startswith("404 session_not_found") and all(each.end < begun.begin for begun in deletes):
            yield Violation("a session stays until it is deleted", session, f"{each.kind} on {each.host}: {each.why}")
            return
    if sessions.listed and session in sessions.created and not deletes and session not in sessions.listed:
        yield Violation("a session stays until it is deleted", session, "it is not listed")
    if acknowledged and session in sessions.listed:
        yield Violation("a deleted session is gone", session, "it is listed")


def _first_of_keys(operations: Iterable[Operation]) -> Mapping[str, float]:
    """When the first request with each key was sent."""
    first: dict[str, float] = {}
    for each in operations:
        if each.key:
            first[each.key] = min(each.begin, first.get(each.key, each.begin))
    return first


def _recoveries(session: str, sessions: _Sessions) -> Iterator[Violation]:
    for each in sessions.of(session, Kind.RECOVER, Outcome.OK):
        if each.recovered_from is None:
            yield Violation("a recovery says how old it is", session, f"on {each.host}")


def _moves(session: str, sessions: _Sessions) -> Iterator[Violation]:
    """A session that moved to another host was in the archive then, so no recovery is older."""
    executes, recovers = sessions.executes(session), sessions.recovers(session)
    for recover in recovers:
        before = [each for each in executes if each.run.ended < recover.begin]
        for earlier, later in pairwise(before):
            if earlier.run.place == later.run.place or earlier.run.ended > later.run.began:
                continue
            if any(each.end > earlier.run.began and each.begin < later.run.ended for each in recovers):
                continue
            if recover.recovered_from is not None and earlier.run.ended > recover.recovered_from + SLACK:
                what = f"the archive had {earlier.line}"
                yield Violation("a recovery is no older than what moved", session, what)


def _spans(session: str, sessions: _Sessions) -> Iterator[Violation]:
    """What runs when a session is given up is not acknowledged any more."""
    for recover in sessions.of(session, Kind.RECOVER, Outcome.OK):
        for each in sessions.executes(session):
            if each.run.began < recover.begin and recover.end < each.run.ended:
                yield Violation("a recovery ends what ran before", session, f"{each.line} on {each.run.place}")


def _both(history: History) -> Iterator[Violation]:
    """No session's programs run on two hosts at a time, whatever becomes of their answers."""
    for each in history.both:
        if each.end - each.begin < PAUSED and _was_paused(each, history):
            continue
        what = f"its programs ran on {' and '.join(each.hosts)} for {each.end - each.begin:.1f} s"
        yield Violation("one host at a time", each.session, what)


def _was_paused(both: Both, history: History) -> bool:
    """Whether it began when one of the hosts was stopped, or went on."""
    pauses = [each for each in history.faults if each.fault == Fault.PAUSE and each.host in both.hosts]
    return any(each.begin <= both.begin <= each.end + PAUSED for each in pauses)


def _drains(history: History) -> Iterator[Violation]:
    """While a host drains and nothing else is broken, each request is answered, and the host gives up all it has. One
    that was first sent before, to a host that was then lost, may be told that nobody knows what became of it."""
    asked: dict[str, float] = {}  # key → when it was first sent
    for each in sorted(history.operations, key=lambda operation: operation.begin):
        asked.setdefault(each.key, each.begin)
    for drain in history.faults:
        if drain.fault != Fault.DRAIN:
            continue
        if drain.left:
            yield Violation("a drain ends at no session", drain.host, f"it had {drain.left} left")
        for each in history.operations:
            is_of_before = each.why.startswith(FOR_GOOD) and asked[each.key] < drain.begin
            is_excused = is_of_before or _was_cut(each, drain, history)
            if drain.begin <= each.begin <= drain.end and _fails(each) and not is_excused:
                what = f"{each.kind} on {each.host}: {each.why}"
                yield Violation("a drain fails no request", each.session or each.key, what)


def _takeovers(history: History) -> Iterator[Violation]:
    """No host is taken over while its lease runs: it may still acknowledge what it does."""
    for each in history.takeovers:
        if each.lease_left > 0:
            what = f"it was taken over {each.lease_left:.1f} s before the end of its lease"
            yield Violation("a host keeps what it has while its lease runs", each.host, what)


def _was_cut(operation: Operation, drain: Happened, history: History) -> bool:
    """Whether the next fault came before the answer."""
    later = [each for each in history.faults if each.begin >= drain.end and each.fault != Fault.DRAIN]
    return any(each.begin <= operation.end for each in later)


def _fails(operation: Operation) -> bool:
    """A request that the documentation allows to refuse does not fail: its session is deleted, busy or still waking."""
    is_lost = operation.why.endswith(SAYS_WHY)  # not by a drain: when all is whole, no session is lost
    if operation.why == GAVE_UP and operation.end - operation.begin < SLOW:
        return False  # nobody has refused it: this machine is slow, and the client impatient
    return operation.outcome is Outcome.UNKNOWN or (operation.outcome is Outcome.REFUSED and is_lost)


def _ends(session: str, sessions: _Sessions) -> Iterator[Violation]:
    """When all faults are mended, each session answers, or says why not."""
    last = _last_finals(sessions.by_session[session]).get(session)
    if last is not None and last.outcome is not Outcome.OK and not _says_why(last):
        if last.why.startswith("404 session_not_found") and sessions.of(session, Kind.DELETE):
            return
        yield Violation("each session answers or says why", session, f"{last.why or last.outcome} on {last.host}")


def _last_finals(operations: Iterable[Operation]) -> Mapping[str, Operation]:
    return {each.session: each for each in operations if each.final}


def _says_why(operation: Operation) -> bool:
    return any(operation.why.endswith(reason) for reason in SAYS_WHY)
