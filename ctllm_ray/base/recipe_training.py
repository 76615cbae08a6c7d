"""The parts of a recipe after the clean shards: tokenizer, token shards, model, training.

Each part is optional: a recipe that only cleans has none of them. What decides the result has no default or a
published one with its source; where and how wide it runs stands in `resources.train` and is in no
fingerprint.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0)]
Matrix = Literal[
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"
]  # of every layer
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"


class Frozen(BaseModel):
    """A part of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def check_sum(shares: dict[str, float], called: str = "shares") -> None:
    """Raises `ValueError` unless they sum to one."""
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise ValueError(f"the {called} sum to {sum(shares.values()):g}, not 1")


class TokenizerPart(Frozen):
    """One trained on the clean shards (`vocab_size`, `sample_mb`), or an existing one (`path`)."""

    path: str = ""  # a SentencePiece model file or a Hugging Face folder
    vocab_size: Annotated[int, Field(ge=0)] = 0  # pieces in all: bytes and specials included
    sample_mb: Annotated[float, Field(ge=0)] = 0  # UTF-8 text it is trained on, drawn by a seeded hash of ids
    shares: dict[str, Share] = {}  # of the sample by source; empty: as the shards have it

    @model_validator(mode="after")
    def _one_way(self) -> TokenizerPart:
        if bool(self.path) == bool(self.vocab_size and self.sample_mb):
            raise ValueError("give either `path`, or `vocab_size` and `sample_mb`")
        if self.shares:
            check_sum(self.shares)
        return self


class Conversations(Frozen):
    """How conversations and preference pairs become token shards; the chat template is the tokenizer's."""

    max_tokens: Count  # of a conversation as rendered; of a pair both sides together
    too_long: Literal["cut", "reject"]  # what becomes of longer ones; either way they are counted


class TokensPart(Frozen):
    """How clean documents become token shards."""

    # or a label of the clean shards (genre): the groups that mixtures and validation name
    group_by: str = "source"
    held_out_share: Share  # documents set aside for validation, by a seeded hash of the id; never trained on
    scores: tuple[str, ...] = ()  # score columns kept beside the ids, for conditional pretraining
    conversations: Conversations | None = None  # for inputs that are conversations or preference pairs


class Model(Frozen):
    """A size of model/config.py (`use`), or a Hugging Face Llama folder to go on from (`path`)."""

    use: str = ""
    path: str = ""
    context_tokens: Annotated[int, Field(ge=0)] = 0  # 0: as the size or the folder has it
    vocabulary: Literal["same", "mean_of_pieces", "multivariate_normal", "wechsel"] = (
        "same"  # of `path`, to ours
    )

    @model_validator(mode="after")
    def _one_way(self) -> Model:
        if bool(self.path) == bool(self.use):
            raise ValueError("give either `use` (a size) or `path` (a Hugging Face folder)")
        return self


class ObjectivePart(BaseModel):
    """What is learnt: `use` names the objective, other keys are its options."""

    model_config = ConfigDict(extra="allow", frozen=True)

    use: str


class MixturePhase(Frozen):
    """A mixture: shares of sequences by group, up to a count of tokens (of all phases before too)."""

    shares: dict[str, Share]
    until_tokens: Count | None = None  # None in the last phase: to the end

    @model_validator(mode="after")
    def _whole(self) -> MixturePhase:
        check_sum(self.shares)
        return self


class Schedule(BaseModel):
    """The learning rate as a function of tokens: `use` names it, other keys are its options; warm-up is linear
    from zero."""

    model_config = ConfigDict(extra="allow", frozen=True)

    use: str  # of train/schedules/
    peak_rate: Positive
    min_share: Share = 0.1  # of the peak, at the end
    warmup_tokens: Annotated[int, Field(ge=0)]
    decay_tokens: Annotated[int, Field(ge=0)] = 0  # of wsd: how long the decay at the end is
    decay: Literal["exponential", "linear", "sqrt"] = "exponential"  # of wsd


class Optimizer(Frozen):
    """AdamW; defaults are CT-LLM's."""

    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: Positive = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.1  # not of norms and biases
    clip_norm: Positive = 1.0


class Lora(Frozen):
    """Low-rank adapters beside frozen matrices: the adapters alone are trained (Hu et al. 2021)."""

    rank: Count
    alpha: Positive  # the adapters' product is scaled by alpha / rank
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0  # of what goes into an adapter
    targets: Annotated[tuple[Matrix, ...], Field(min_length=1)] = get_args(
        Matrix
    )  # all of them, as QLoRA found best


class Spikes(Frozen):
    """What to do when the loss of a batch stands far above those before it."""

    policy: Literal["report", "skip", "rewind"] = "report"
    # robust standard deviations (of neighbouring losses) above the window's median
    deviations: Positive = 6.0
    window_steps: Annotated[int, Field(ge=8)] = 128


class Validation(Frozen):
    """Bits per byte and per character by group on held-out documents."""

    every_tokens: Count
    corpora: tuple[
        str, ...
    ] = ()  # folders of token sections whose held-out documents are used; empty: the run's own
    max_tokens: Count = 2_000_000  # by group, from the front of a fixed order


class Train(Frozen):
    """A training run. `tokens` are positions: sequences x sequence_tokens, padding included (and counted)."""

    run: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]*$")] = ""  # tells runs over the same shards apart
    objective: ObjectivePart
    seed: int | None = None  # of the order and the initial weights; None: the recipe's
    corpora: tuple[
        str, ...
    ] = ()  # folders of token sections; empty: this recipe's own. Appended ones join a begun run
    tokens: Count  # of the whole run; rounded up to whole batches
    batch_tokens: Count  # of the global batch, whatever the number of workers
    sequence_tokens: Count
    packing: str  # of shards/packers/
    document_attention: bool  # no attention across documents, positions reset at each
    mixture: tuple[MixturePhase, ...]
    block_sequences: Count = 1024  # the shares are exact in every block of so many sequences
    # over a group; more is an error (Muennighoff et al. 2023: up to 4 epochs cost little)
    max_epochs: Positive = 4
    epoch_caps: dict[
        str, Positive
    ] = {}  # groups that end after so many epochs; their share goes to the others
    schedule: Schedule
    optimizer: Optimizer = Optimizer()
    lora: Lora | None = None  # None: all weights are trained
    precision: Literal["fp32", "bf16"]
    spikes: Spikes = Spikes()
    validation: Validation | None = None
    # a checkpoint folder of another run: its state goes on under this schedule and mixture
    branch_from: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Train:
        if self.batch_tokens % self.sequence_tokens:
            raise ValueError(
                f"batch_tokens {self.batch_tokens} is not a multiple of sequence_tokens "
                f"{self.sequence_tokens}"
            )
        ends = [phase.until_tokens for phase in self.mixture]
        if (
            not ends
            or ends[-1] is not None
            or None in ends[:-1]
            or sorted(e or 0 for e in ends[:-1]) != ends[:-1]
        ):
            raise ValueError("the mixture needs phases with rising `until_tokens`, the last one without")
        groups = sorted({group for phase in self.mixture for group in phase.shares})
        if unknown := sorted(set(self.epoch_caps) - set(groups)):
            raise ValueError(f"epoch_caps names {unknown[0]!r}, which no mixture has: {', '.join(groups)}")
        return self


class TrainResources(Frozen):
    """Where and how wide training runs; changes rounding at most, never the data or its order."""

    workers: Count | tuple[Count, Count] = 1  # Ray Train workers; [least, most] is elastic
    gpu: bool = False  # one GPU for each worker
    threads: Annotated[int, Field(ge=0)] = 0  # of each CPU worker; 0: the machine's cores over the workers
    stepper: str = "auto"  # of train/steppers/; auto: deepspeed where it helps and can start, else torch
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 1
    offload: bool = False  # optimizer state in host memory (DeepSpeed)
    micro_sequences: Count = 1  # sequences of one forward pass
    activation_checkpointing: bool = False
    compile: bool = False  # torch.compile
    fused_loss: bool = False  # linear and cross-entropy in one kernel (Liger, GPU)
    attention: Literal["sdpa", "flash_attention_2", "flash_attention_3", "eager"] = "sdpa"
    checkpoint_s: Positive = 600  # between checkpoints, seconds
    keep: Count = 2  # checkpoints on disk; those of `keep_every_tokens` stay
    keep_every_tokens: Annotated[int, Field(ge=0)] = 0  # 0: none is kept for good
    max_failures: int = 3  # worker group failures until the run fails; -1: no limit
    start_timeout_s: Positive = 600  # until all workers stand (image pulls, imports)
    resize_s: Positive = 60  # between looks for room to grow
    verify_shards: bool = True  # hash every shard before the first step
    trackers: tuple[str, ...] = ()  # of train/tracking/trackers/

    @property
    def worker_range(self) -> tuple[int, int]:
        """The least and the most workers."""
        return self.workers if isinstance(self.workers, tuple) else (self.workers, self.workers)
