from . import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetEngineRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetEngineResponse(_message.Message):
    __slots__ = ("model", "vocabulary_size", "context_length", "uniforms_per_position", "max_slots", "max_sequences", "bytes_per_token", "precision", "device", "drafter")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_SIZE_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_LENGTH_FIELD_NUMBER: _ClassVar[int]
    UNIFORMS_PER_POSITION_FIELD_NUMBER: _ClassVar[int]
    MAX_SLOTS_FIELD_NUMBER: _ClassVar[int]
    MAX_SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    BYTES_PER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    DRAFTER_FIELD_NUMBER: _ClassVar[int]
    model: str
    vocabulary_size: int
    context_length: int
    uniforms_per_position: int
    max_slots: int
    max_sequences: int
    bytes_per_token: int
    precision: str
    device: str
    drafter: DrafterFacts
    def __init__(self, model: _Optional[str] = ..., vocabulary_size: _Optional[int] = ..., context_length: _Optional[int] = ..., uniforms_per_position: _Optional[int] = ..., max_slots: _Optional[int] = ..., max_sequences: _Optional[int] = ..., bytes_per_token: _Optional[int] = ..., precision: _Optional[str] = ..., device: _Optional[str] = ..., drafter: _Optional[_Union[DrafterFacts, _Mapping]] = ...) -> None: ...

class DrafterFacts(_message.Message):
    __slots__ = ("checks_blocks", "max_branch_length", "yield_curve", "yield_curve_after_miss")
    CHECKS_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    MAX_BRANCH_LENGTH_FIELD_NUMBER: _ClassVar[int]
    YIELD_CURVE_FIELD_NUMBER: _ClassVar[int]
    YIELD_CURVE_AFTER_MISS_FIELD_NUMBER: _ClassVar[int]
    checks_blocks: bool
    max_branch_length: int
    yield_curve: _containers.RepeatedScalarFieldContainer[float]
    yield_curve_after_miss: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, checks_blocks: _Optional[bool] = ..., max_branch_length: _Optional[int] = ..., yield_curve: _Optional[_Iterable[float]] = ..., yield_curve_after_miss: _Optional[_Iterable[float]] = ...) -> None: ...

class RunRequest(_message.Message):
    __slots__ = ("id", "open", "reuse_prefix", "close", "target", "draft")
    ID_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    REUSE_PREFIX_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    DRAFT_FIELD_NUMBER: _ClassVar[int]
    id: int
    open: OpenSequence
    reuse_prefix: ReusePrefix
    close: CloseSequence
    target: TargetRun
    draft: DraftRun
    def __init__(self, id: _Optional[int] = ..., open: _Optional[_Union[OpenSequence, _Mapping]] = ..., reuse_prefix: _Optional[_Union[ReusePrefix, _Mapping]] = ..., close: _Optional[_Union[CloseSequence, _Mapping]] = ..., target: _Optional[_Union[TargetRun, _Mapping]] = ..., draft: _Optional[_Union[DraftRun, _Mapping]] = ...) -> None: ...

class OpenSequence(_message.Message):
    __slots__ = ("sequence",)
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    def __init__(self, sequence: _Optional[int] = ...) -> None: ...

class CloseSequence(_message.Message):
    __slots__ = ("sequence",)
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    def __init__(self, sequence: _Optional[int] = ...) -> None: ...

class ReusePrefix(_message.Message):
    __slots__ = ("sequence", "tokens")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    tokens: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, sequence: _Optional[int] = ..., tokens: _Optional[_Iterable[int]] = ...) -> None: ...

class TargetRun(_message.Message):
    __slots__ = ("slots",)
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    slots: _containers.RepeatedCompositeFieldContainer[TargetSlot]
    def __init__(self, slots: _Optional[_Iterable[_Union[TargetSlot, _Mapping]]] = ...) -> None: ...

class TargetSlot(_message.Message):
    __slots__ = ("sequence", "at", "tokens", "sampling", "uniforms", "adjustments", "top_count")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    UNIFORMS_FIELD_NUMBER: _ClassVar[int]
    ADJUSTMENTS_FIELD_NUMBER: _ClassVar[int]
    TOP_COUNT_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    at: int
    tokens: _containers.RepeatedScalarFieldContainer[int]
    sampling: _common_pb2.SamplingParameters
    uniforms: UniformSource
    adjustments: _containers.RepeatedCompositeFieldContainer[LogitAdjustment]
    top_count: int
    def __init__(self, sequence: _Optional[int] = ..., at: _Optional[int] = ..., tokens: _Optional[_Iterable[int]] = ..., sampling: _Optional[_Union[_common_pb2.SamplingParameters, _Mapping]] = ..., uniforms: _Optional[_Union[UniformSource, _Mapping]] = ..., adjustments: _Optional[_Iterable[_Union[LogitAdjustment, _Mapping]]] = ..., top_count: _Optional[int] = ...) -> None: ...

class UniformSource(_message.Message):
    __slots__ = ("seed", "offset")
    SEED_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    seed: int
    offset: int
    def __init__(self, seed: _Optional[int] = ..., offset: _Optional[int] = ...) -> None: ...

class LogitAdjustment(_message.Message):
    __slots__ = ("scaled", "scale", "biased", "biases", "allowed")
    SCALED_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    BIASED_FIELD_NUMBER: _ClassVar[int]
    BIASES_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    scaled: _containers.RepeatedScalarFieldContainer[int]
    scale: float
    biased: _containers.RepeatedScalarFieldContainer[int]
    biases: _containers.RepeatedScalarFieldContainer[float]
    allowed: bytes
    def __init__(self, scaled: _Optional[_Iterable[int]] = ..., scale: _Optional[float] = ..., biased: _Optional[_Iterable[int]] = ..., biases: _Optional[_Iterable[float]] = ..., allowed: _Optional[bytes] = ...) -> None: ...

class DraftRun(_message.Message):
    __slots__ = ("slots",)
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    slots: _containers.RepeatedCompositeFieldContainer[DraftSlot]
    def __init__(self, slots: _Optional[_Iterable[_Union[DraftSlot, _Mapping]]] = ...) -> None: ...

class DraftSlot(_message.Message):
    __slots__ = ("sequence", "at", "tokens", "sampling", "uniforms", "branches", "check")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    UNIFORMS_FIELD_NUMBER: _ClassVar[int]
    BRANCHES_FIELD_NUMBER: _ClassVar[int]
    CHECK_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    at: int
    tokens: _containers.RepeatedScalarFieldContainer[int]
    sampling: _common_pb2.SamplingParameters
    uniforms: UniformSource
    branches: _containers.RepeatedCompositeFieldContainer[BranchRequest]
    check: BlockCheck
    def __init__(self, sequence: _Optional[int] = ..., at: _Optional[int] = ..., tokens: _Optional[_Iterable[int]] = ..., sampling: _Optional[_Union[_common_pb2.SamplingParameters, _Mapping]] = ..., uniforms: _Optional[_Union[UniformSource, _Mapping]] = ..., branches: _Optional[_Iterable[_Union[BranchRequest, _Mapping]]] = ..., check: _Optional[_Union[BlockCheck, _Mapping]] = ...) -> None: ...

class BranchRequest(_message.Message):
    __slots__ = ("visible", "length", "excluded")
    VISIBLE_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    EXCLUDED_FIELD_NUMBER: _ClassVar[int]
    visible: int
    length: int
    excluded: int
    def __init__(self, visible: _Optional[int] = ..., length: _Optional[int] = ..., excluded: _Optional[int] = ...) -> None: ...

class BlockCheck(_message.Message):
    __slots__ = ("block", "length")
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    block: int
    length: int
    def __init__(self, block: _Optional[int] = ..., length: _Optional[int] = ...) -> None: ...

class RunResponse(_message.Message):
    __slots__ = ("id", "error", "reused", "target", "draft")
    ID_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    REUSED_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    DRAFT_FIELD_NUMBER: _ClassVar[int]
    id: int
    error: RunError
    reused: ReusedPrefix
    target: TargetResult
    draft: DraftRunResult
    def __init__(self, id: _Optional[int] = ..., error: _Optional[_Union[RunError, _Mapping]] = ..., reused: _Optional[_Union[ReusedPrefix, _Mapping]] = ..., target: _Optional[_Union[TargetResult, _Mapping]] = ..., draft: _Optional[_Union[DraftRunResult, _Mapping]] = ...) -> None: ...

class RunError(_message.Message):
    __slots__ = ("code", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class ReusedPrefix(_message.Message):
    __slots__ = ("rows", "cache")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    CACHE_FIELD_NUMBER: _ClassVar[int]
    rows: int
    cache: _common_pb2.PrefixCacheFacts
    def __init__(self, rows: _Optional[int] = ..., cache: _Optional[_Union[_common_pb2.PrefixCacheFacts, _Mapping]] = ...) -> None: ...

class TargetResult(_message.Message):
    __slots__ = ("outputs", "run_us")
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    RUN_US_FIELD_NUMBER: _ClassVar[int]
    outputs: _containers.RepeatedCompositeFieldContainer[TargetOutput]
    run_us: int
    def __init__(self, outputs: _Optional[_Iterable[_Union[TargetOutput, _Mapping]]] = ..., run_us: _Optional[int] = ...) -> None: ...

class TargetOutput(_message.Message):
    __slots__ = ("picks", "log_probabilities", "top_ids", "top_log_probabilities")
    PICKS_FIELD_NUMBER: _ClassVar[int]
    LOG_PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    TOP_IDS_FIELD_NUMBER: _ClassVar[int]
    TOP_LOG_PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    picks: _containers.RepeatedScalarFieldContainer[int]
    log_probabilities: _containers.RepeatedScalarFieldContainer[float]
    top_ids: _containers.RepeatedScalarFieldContainer[int]
    top_log_probabilities: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, picks: _Optional[_Iterable[int]] = ..., log_probabilities: _Optional[_Iterable[float]] = ..., top_ids: _Optional[_Iterable[int]] = ..., top_log_probabilities: _Optional[_Iterable[float]] = ...) -> None: ...

class DraftRunResult(_message.Message):
    __slots__ = ("outputs", "run_us")
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    RUN_US_FIELD_NUMBER: _ClassVar[int]
    outputs: _containers.RepeatedCompositeFieldContainer[DraftOutput]
    run_us: int
    def __init__(self, outputs: _Optional[_Iterable[_Union[DraftOutput, _Mapping]]] = ..., run_us: _Optional[int] = ...) -> None: ...

class DraftOutput(_message.Message):
    __slots__ = ("branches",)
    BRANCHES_FIELD_NUMBER: _ClassVar[int]
    branches: _containers.RepeatedCompositeFieldContainer[DraftedBranch]
    def __init__(self, branches: _Optional[_Iterable[_Union[DraftedBranch, _Mapping]]] = ...) -> None: ...

class DraftedBranch(_message.Message):
    __slots__ = ("tokens", "confidences", "accepted")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCES_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedScalarFieldContainer[int]
    confidences: _containers.RepeatedScalarFieldContainer[float]
    accepted: int
    def __init__(self, tokens: _Optional[_Iterable[int]] = ..., confidences: _Optional[_Iterable[float]] = ..., accepted: _Optional[int] = ...) -> None: ...
