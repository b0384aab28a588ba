"""Dead letters of a run folder on object storage, and who has taken them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.journal.bucket import Bucket
from airflow_provider_regal.journal.bucket_claims import CLAIMS_FILE, claim_line, read_claims, return_line
from airflow_provider_regal.journal.claim import Claim, MayTakeAgain
from airflow_provider_regal.journal.dead_letters import DeadLetter, read_in_order
from airflow_provider_regal.journal.folder_letters import LETTERS
from airflow_provider_regal.journal.log_notes import NotingLog
from airflow_provider_regal.journal.parts import bring, content_of
from airflow_provider_regal.journal.progress import Progress
from airflow_provider_regal.journal.segment import Kind, Part, Segment, files_of
from airflow_provider_regal.journal.working_folder import WorkingFolder

_PROGRESS = "progress.log"


class BucketLetters:
    """The dead letters of a run folder on object storage, copied to this machine.

    Nobody is kept from working in the folder meanwhile; but then no letter of it can be taken any more.

    :param only_looks: nothing is to be taken, so it does not matter whether somebody works there.
    :raises FolderInUseError: somebody does.
    :raises DamagedError: nobody can tell which rows are dead.
    :raises CorruptProgressError: likewise.
    """

    def __init__(self, bucket: Bucket, clock: Clock, *, only_looks: bool = False) -> None:
        self._bucket = bucket
        self._log = NotingLog(bucket, clock)
        self._working = WorkingFolder()
        self._progress: Progress | None = None
        self._is_dead: Callable[[int], bool] | None = None
        try:
            segments = self._log.look()
            if not only_looks:
                self._log.check_nobody_holds_it()
            self._bring(segments)
            self._claims, self._size = _claims(bucket, segments)
        except BaseException:
            self.close()
            raise

    def _bring(self, segments: Sequence[Segment]) -> None:
        files, folder = files_of(segments), self._working.path
        if LETTERS in files:
            bring(self._bucket, files[LETTERS], folder / LETTERS)
        elif all(segment.kind is Kind.NOTE for segment in segments):  # somebody has put a copy of letters there
            self._bucket.get_file(LETTERS, folder / LETTERS)
        if _PROGRESS in files:
            bring(self._bucket, files[_PROGRESS], folder / _PROGRESS)
            self._progress = Progress(folder / _PROGRESS)
            self._is_dead = self._progress.is_dead

    def read(self) -> Iterator[DeadLetter]:
        """Give the letters of rows that are dead, in the order of the rows."""
        yield from read_in_order(self._working.path / LETTERS, self._is_dead)

    def claim_of(self, position: int) -> Claim | None:
        """Say who has a letter."""
        return self._claims.get(position)

    def take(self, positions: Collection[int], by: str, again: MayTakeAgain) -> dict[int, Claim]:
        """Take letters, but for those that somebody has.

        :param again: whether one that we have had is ours to send.
        :returns: position -> who has it now.
        :raises FolderInUseError: somebody has worked in the folder since it was read.
        """
        while free := [position for position in positions if self._is_free(position, by, again)]:
            # Ours anew, too: else an earlier try of ours, however late it wakes up, could give them back.
            line = claim_line(self._log.writer, by, free)
            if self._log.note(Part(CLAIMS_FILE, len(line), self._size, None, line)):
                self._size += len(line)
                self._claims.update(dict.fromkeys(free, Claim(by, token=self._log.writer)))
                break
            self._claims, self._size = _claims(self._bucket, self._log.catch_up())
        ours = set(free)
        return {position: replace(self._claims[position], ours=position in ours) for position in positions}

    def _is_free(self, position: int, by: str, again: MayTakeAgain) -> bool:
        claim = self._claims.get(position)
        return claim is None or (claim.by == by and again(claim))

    def close(self) -> None:
        """Remove the copy."""
        if self._progress is not None:
            self._progress.close()
        self._working.close()


def give_back(bucket: Bucket, tokens: Mapping[int, str], clock: Clock) -> None:
    """Let others have letters of which nothing was sent.

    :param tokens: position -> of the occasion on which it was taken; one that was taken anew since stays.
    :raises FolderInUseError: somebody works in the folder.
    """
    log = NotingLog(bucket, clock)
    while True:
        claims, size = _claims(bucket, log.look())
        log.check_nobody_holds_it()
        ours = [
            position
            for position, token in tokens.items()
            if (claim := claims.get(position)) is not None and claim.token == token and claim.outcome is None
        ]
        line = return_line(ours)
        if not ours or log.note(Part(CLAIMS_FILE, len(line), size, None, line)):
            return


def _claims(bucket: Bucket, segments: Sequence[Segment]) -> tuple[dict[int, Claim], int]:
    """Read who has which letter, and how long the file of claims is."""
    parts = files_of(segments).get(CLAIMS_FILE, [])
    return read_claims(b"".join(content_of(bucket, part) for part in parts), bucket), sum(part.size for part in parts)
