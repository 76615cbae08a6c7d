"""The sections of a recipe after the clean shards: tokenizer, token shards, model, training.

Each section is optional; a recipe that only cleans has none of them. Settings that affect the result have no
default, or a published one with its source. Where and how wide to run is set in `resources.train` and is in
no fingerprint.
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
    """A section of a recipe: frozen, without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def check_sum(shares: dict[str, float], called: str = "shares") -> None:
    """Raises `ValueError` unless the shares sum to one."""
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise ValueError(f"the {called} sum to {sum(shares.values()):g}, not 1")


class TokenizerPart(Frozen):
    """A tokenizer trained on the clean shards (`vocab_size`, `sample_mb`), or an existing one (`path`)."""

    path: str = ""  # a SentencePiece model file or a Hugging Face folder
    vocab_size: Annotated[int, Field(ge=0)] = 0  # all pieces, including bytes and specials
    sample_mb: Annotated[float, Field(ge=0)] = 0  # UTF-8 text to train on, drawn by a seeded hash of ids
    shares: dict[str, Share] = {}  # shares of the sample by source; empty: as in the shards

    @model_validator(mode="after")
    def _one_way(self) -> TokenizerPart:
        if bool(self.path) == bool(self.vocab_size and self.sample_mb):
            raise ValueError("set either `path`, or `vocab_size` and `sample_mb`")
        if self.shares:
            check_sum(self.shares)
        return self


class Conversations(Frozen):
    """How conversations and preference pairs become token shards; the chat template is the tokenizer's."""

    max_tokens: Count  # of an encoded conversation; of both sides of a pair together
    too_long: Literal["cut", "reject"]  # what to do with longer ones; both are counted


class TokensPart(Frozen):
    """How clean documents become token shards."""

    # or a label of the clean shards (genre): the groups for mixtures and validation
    group_by: str = "source"
    # share of documents held out for validation, by a seeded hash of the id; never trained on
    held_out_share: Share
    scores: tuple[str, ...] = ()  # score columns to keep with the ids, for conditional pretraining
    conversations: Conversations | None = None  # for inputs with conversations or preference pairs


class Model(Frozen):
    """A model size of model/config.py (`use`), or a Hugging Face Llama folder to start from (`path`)."""

    use: str = ""
    path: str = ""
    context_tokens: Annotated[int, Field(ge=0)] = 0  # 0: as in the size or the folder
    vocabulary: Literal["same", "mean_of_pieces", "multivariate_normal", "wechsel"] = (
        "same"  # how to convert the vocabulary of `path` to ours
    )

    @model_validator(mode="after")
    def _one_way(self) -> Model:
        if bool(self.path) == bool(self.use):
            raise ValueError("set either `use` (a size) or `path` (a Hugging Face folder)")
        return self


class ObjectivePart(BaseModel):
    """The training objective: `use` names it; other keys are its options."""

    model_config = ConfigDict(extra="allow", frozen=True)

    use: str


class MixturePhase(Frozen):
    """A mixture: shares of sequences by group, up to a token count (from the start of the run)."""

    shares: dict[str, Share]
    until_tokens: Count | None = None  # None in the last phase: until the end

    @model_validator(mode="after")
    def _whole(self) -> MixturePhase:
        check_sum(self.shares)
        return self


class Schedule(BaseModel):
    """The learning rate as a function of tokens: `use` names it; other keys are its options.
    Warm-up is linear from zero."""

    model_config = ConfigDict(extra="allow", frozen=True)

    use: str  # of train/schedules/
    peak_rate: Positive
    min_share: Share = 0.1  # share of the peak at the end
    warmup_tokens: Annotated[int, Field(ge=0)]
    decay_tokens: Annotated[int, Field(ge=0)] = 0  # for wsd: length of the final decay
    decay: Literal["exponential", "linear", "sqrt"] = "exponential"  # for wsd


class Optimizer(Frozen):
    """AdamW. The defaults are CT-LLM's."""

    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: Positive = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.1  # not for norms and biases
    clip_norm: Positive = 1.0


class Lora(Frozen):
    """Low-rank adapters next to frozen matrices; only the adapters are trained (Hu et al. 2021)."""

    rank: Count
    alpha: Positive  # the product of the adapters is scaled by alpha / rank
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0  # on the input of an adapter
    targets: Annotated[tuple[Matrix, ...], Field(min_length=1)] = get_args(
        Matrix
    )  # all of them, as QLoRA recommends


class Spikes(Frozen):
    """What to do if the loss of a batch is far above recent losses."""

    policy: Literal["report", "skip", "rewind"] = "report"
    # threshold above the window's median, in robust standard deviations (of neighbouring losses)
    deviations: Positive = 6.0
    window_steps: Annotated[int, Field(ge=8)] = 128


class Validation(Frozen):
    """Bits per byte and per character by group on held-out documents."""

    every_tokens: Count
    corpora: tuple[str, ...] = ()  # folders of token sections with held-out documents; empty: the run's own
    max_tokens: Count = 2_000_000  # per group, from the start of a fixed order


class Train(Frozen):
    """A training run. `tokens` are positions: sequences x sequence_tokens, including padding."""

    run: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]*$")] = ""  # distinguishes runs over the same shards
    objective: ObjectivePart
    seed: int | None = None  # for the order and the initial weights; None: the recipe's
    corpora: tuple[
        str, ...
    ] = ()  # folders of token sections; empty: the recipe's own. Appended ones join a running run
    tokens: Count  # of the whole run, rounded up to whole batches
    batch_tokens: Count  # of the global batch, for any number of workers
    sequence_tokens: Count
    packing: str  # of shards/packers/
    document_attention: bool  # no attention across documents; positions restart at each
    mixture: tuple[MixturePhase, ...]
    block_sequences: Count = 1024  # shares are exact in every block of so many sequences
    # maximum epochs over a group; more is an error (Muennighoff et al. 2023: up to 4 epochs cost little)
    max_epochs: Positive = 4
    epoch_caps: dict[
        str, Positive
    ] = {}  # groups that end after so many epochs; their share goes to the others
    schedule: Schedule
    optimizer: Optimizer = Optimizer()
    lora: Lora | None = None  # None: train all weights
    precision: Literal["fp32", "bf16"]
    spikes: Spikes = Spikes()
    validation: Validation | None = None
    # a checkpoint folder of another run: its state continues under this schedule and mixture
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
            raise ValueError("the mixture needs phases with rising `until_tokens`; the last one has none")
        groups = sorted({group for phase in self.mixture for group in phase.shares})
        if unknown := sorted(set(self.epoch_caps) - set(groups)):
            raise ValueError(f"epoch_caps has {unknown[0]!r}, which no mixture has: {', '.join(groups)}")
        return self


class TrainResources(Frozen):
    """Where and how wide training runs. It changes rounding at most, never the data or their order."""

    workers: Count | tuple[Count, Count] = 1  # Ray Train workers; [minimum, maximum] is elastic
    gpu: bool = False  # one GPU per worker
    threads: Annotated[int, Field(ge=0)] = 0  # per CPU worker; 0: the machine's cores divided by the workers
    stepper: str = "auto"  # from train/steppers/; auto: deepspeed if it helps and can start, else torch
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 1
    offload: bool = False  # keep optimizer state in host memory (DeepSpeed)
    micro_sequences: Count = 1  # sequences per forward pass
    activation_checkpointing: bool = False
    compile: bool = False  # torch.compile
    fused_loss: bool = False  # output layer and cross-entropy in one kernel (Liger, GPU)
    attention: Literal["sdpa", "flash_attention_2", "flash_attention_3", "eager"] = "sdpa"
    checkpoint_s: Positive = 600  # seconds between checkpoints
    keep: Count = 2  # checkpoints to keep, in addition to those of `keep_every_tokens`
    keep_every_tokens: Annotated[int, Field(ge=0)] = 0  # 0: keep none permanently
    max_failures: int = 3  # worker group failures before the run fails; -1: no limit
    start_timeout_s: Positive = 600  # seconds until all workers are up (image pulls, imports)
    resize_s: Positive = 60  # seconds between checks for room to grow
    verify_shards: bool = True  # hash every shard before the first step
    trackers: tuple[str, ...] = ()  # of train/tracking/trackers/

    @property
    def worker_range(self) -> tuple[int, int]:
        """The minimum and the maximum number of workers."""
        return self.workers if isinstance(self.workers, tuple) else (self.workers, self.workers)
