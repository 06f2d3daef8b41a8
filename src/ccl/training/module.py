"""Joint training of both streams (CCL Sec. 4.4): Lightning schedules, the parts do the work.

B clips of this process, T latent frames or audio latents. A task says who sees whom, what is given and what counts;
draws.py says what chance decides; flow matching (flow.py) says what is learned; Eq. 7 weighs the losses.
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.tensor import DTensor
from torch.optim.lr_scheduler import LambdaLR

from ccl import arguments, flow
from ccl.codecs.base import Codec
from ccl.flow import LogitNormal, TimeDistribution
from ccl.grid import Grid
from ccl.image import ImageEncoder
from ccl.image.first import show
from ccl.model.adapter import Freeze, LoRA, freeze, frozen, initialise_adapters
from ccl.model.dual_stream import DualStreamTransformer
from ccl.model.image import Shown
from ccl.model.quantized import Quantization, check_quantization, quantize
from ccl.model.voice import Voice
from ccl.nn.chunks import chosen, joined
from ccl.rng import seed_of
from ccl.storage.checkpoint import check_parts, is_complete
from ccl.storage.sharded_checkpoint import sharded_shapes
from ccl.tasks import PAPER_TASKS, Router, Task, Term, alone, check
from ccl.text.base import TextEncoder, check_width
from ccl.training.draws import Draws, draw, gives_voice, placed, told
from ccl.training.fsdp import Ranks, Reduce, WholeDraws, gathered, shard
from ccl.training.losses import MIXED, Losses, aligned, by_key, loss_by_clip
from ccl.training.mixed import check_alone
from ccl.training.optimizer import OptimizerConfig, adamw_8bit, read, written
from ccl.training.start import PARTS, Part, begin, copy_values, go_on
from ccl.training.validation import BINS, Binned, stratified
from ccl.types import AV, STREAMS, VOICE, VOICE_SECONDS, Batch
from ccl.weights.fill import check_shapes, shapes_of


class TrainingError(ValueError):
    """Training cannot go on; the message is one sentence that names the step, the task and the clips."""


class JointDiffusion(LightningModule):
    """The dual-stream network, its text encoder and how they learn.

    Args:
        net: makes the network; a factory, so that it can be built sharded.
        text: makes the text encoder, which trains with the network as far as its parameters ask for gradients.
        codec: media to latents; never trained here, and not part of a checkpoint.
        grid: shape of a clip.
        tasks: what steps train, of which a callback draws one for each step or clip; None is the paper's five tasks.
        time: where training times come from; None is a logit-normal (paper silent, decision 15).
        optimizer: rates and schedule.
        text_dropout: share of clips whose prompt is dropped in both streams together: the encoded empty prompt.
        loss_weights: of "video" and "audio", beside those of a task's terms; and of the losses that interactions
            return, by their names, beside the weights that an interaction has for them itself; 1 where nothing is said.
        seed: of the weights at step 0, of tasks, times and noise.
        pretrained: whose weights training starts from: a model folder; or a run folder, for its last checkpoint, or
            a .ckpt in one, averaged; or a Wan backbone for the video stream, or Ovi's two with their fusion (a file, a
            folder, or a repository of the hub that was fetched); or OWNER/NAME[@REVISION], a model folder there; or a
            source for each of video, audio and text. What no source has, be it a stream, the interaction or the text
            encoder, is new, and is told.
        freeze: "backbones" trains the cross-modal parameters alone and leaves streams and text encoder (AV-Link);
            "text" leaves the text encoder alone, as umT5 is left; "all" trains the adapters of `lora` alone.
        lora: adapters that train in the place of the streams' own weights; implies "backbones" at least.
        quantize: "int8" or "float8" keeps the frozen matrices of the video stream's blocks in 8 bits while adapters or
            cross-modal parameters train; not with FSDP2, which spreads them over GPUs instead, nor with an average.
        image: encoder of the first picture, of a network that is shown one; such a network is always shown it, so no
            first frame is given as a latent, and all latent frames are generated and count.
        compile: compile each block of the network; changes the last bits, so keep it as it is when resuming. None does
            on a GPU, where a step trains one task: each mix of tasks would be compiled anew.
        reduce: in which precision FSDP2 sums gradients over GPUs, where it computes in bfloat16; None is float32,
            "bfloat16" sends half as much and rounds each sum.
        bins: of the time, by which validation tells its losses; None is 4.
    """

    net: DualStreamTransformer | None
    text: TextEncoder | None
    ema: nn.ModuleDict | None
    router: Router

    def __init__(
        self,
        net: Callable[[], DualStreamTransformer],
        text: Callable[[], TextEncoder],
        codec: Codec,
        grid: Grid,
        *,
        tasks: dict[str, Task] | None = None,
        time: TimeDistribution | None = None,
        optimizer: OptimizerConfig | None = None,
        text_dropout: float = 0.1,
        loss_weights: dict[str, float] | None = None,
        seed: int = 0,
        pretrained: str | dict[Part, str | None] | None = None,
        freeze: Freeze | None = None,
        lora: LoRA | None = None,
        quantize: Quantization | None = None,
        image: ImageEncoder | None = None,
        compile: bool | None = None,
        reduce: Reduce | None = None,
        bins: int | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= text_dropout <= 1:
            raise ValueError(f"model.text_dropout is {text_dropout:g}; it is a share, from 0 to 1")
        for name, weight in (loss_weights or {}).items():
            arguments.number(f"model.loss_weights.{name}", weight, 0)
        arguments.number("model.seed", seed, 0, 2**63 - 1, whole=True)
        if bins is not None:
            arguments.number("model.bins", bins, 1, 100, whole=True)
        self._factories = (net if lora is None else lambda: lora.adapt(net()), text)
        self.frozen, self.lora = frozen(freeze, lora), lora
        if quantize is not None:
            check_quantization(quantize, self.frozen, sharded=False, averaged=False)
        self.quantize = quantize
        if isinstance(pretrained, dict) and (unknown := pretrained.keys() - set(PARTS)):
            raise ValueError(f"model.pretrained has {min(unknown)}; it takes a source for {', '.join(PARTS)}")
        # Held in a tuple, so that a codec is neither saved, averaged, sharded nor handed to the optimizer.
        self._codec = (codec.eval().requires_grad_(False),)
        self._image = (image,)
        self.grid = grid
        self.tasks = PAPER_TASKS if tasks is None else tasks
        check(self.tasks)
        self.time = LogitNormal() if time is None else time
        self.optimizer_config = OptimizerConfig() if optimizer is None else optimizer
        self.text_dropout, self.loss_weights = text_dropout, loss_weights or {}
        self.seed, self.pretrained, self.compile_blocks, self.reduce = seed, pretrained, compile, reduce
        self.net = self.text = self.ema = None
        self.bins = BINS if bins is None else bins
        self.validated: dict[str, float] = {}  # what the last validation has found
        self.keeps_average = False  # set by the EMA callback before the network is built
        self.balance = AV(1.0, 1.0)  # of the streams' losses, found by a callback (`ccl.callbacks.Balance`)
        self.batches = 0  # seen so far, over all runs: what tasks and noise are keyed on

    @property
    def codec(self) -> Codec:
        return self._codec[0].to(self.device)

    @property
    def image(self) -> ImageEncoder | None:
        return self._image[0]

    def setup(self, stage: str) -> None:
        if stage == "fit":
            routers = [one for one in getattr(self.trainer, "callbacks", ()) if isinstance(one, Router)]
            if len(routers) != 1:
                raise TrainingError(
                    f"trainer.callbacks hold {len(routers)} callbacks that draw a step's task; one is needed, such as "
                    "ccl.callbacks.TaskRouter"
                )
            (self.router,) = routers
            if self.optimizer_config.bits is not None:
                adamw_8bit()  # raises, before anything is built, where it is not installed
        # A run without clips to validate on is as intended; Lightning would warn of it every time.
        data = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and getattr(data, "val_shards", None) is None:
            self.trainer.limit_val_batches = 0

    # Building

    def check_sizes(self) -> None:
        """Build the network without memory: ValueError where there is none of the sizes that its factory is given."""
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            self._factories[0]()

    def configure_model(self) -> None:
        """Build network, text encoder and average; sharded where the strategy brings a device mesh (FSDP2)."""
        if self.net is not None:
            return
        mesh = self.device_mesh
        if self.quantize is not None:
            try:
                check_quantization(self.quantize, self.frozen, sharded=mesh is not None, averaged=self.keeps_average)
            except ValueError as error:
                raise TrainingError(str(error)) from error
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.manual_seed(seed_of("weights", "text", self.seed))
            text = self._factories[1]()
            with torch.device("cpu" if mesh is None else "meta"):
                net = self._factories[0]()
            if "image" in net.needs and self.image is None:
                raise TrainingError(
                    "model.net is always shown a first picture, so model.image must be an encoder of it"
                )
            try:
                self.codec.check(self.grid, net.channels)
                check_width(text, net.text_dim)
            except ValueError as error:
                raise TrainingError(str(error)) from error
            self.net, self.text = net, text
            freeze(self.frozen, net, text)
            if self.keeps_average:
                self.ema = nn.ModuleDict({"net": copy.deepcopy(net)})
                if any(parameter.requires_grad for parameter in text.parameters()):
                    self.ema["text"] = copy.deepcopy(text)
                self.ema.requires_grad_(False)
            if mesh is not None:
                ranks = Ranks.of(mesh)
                if ranks.context is not None:
                    self._share(net, ranks.context)
                bf16 = str(self.trainer.precision).startswith("bf16")
                for part in (net, text, *(self.ema or {}).values()):
                    shard(part, ranks.all, bf16=bf16, reduce=self.reduce or "float32")
                for part in (net, *(self.ema or {}).values()):
                    part.to_empty(device=self.trainer.strategy.root_device)
            torch.manual_seed(seed_of("weights", "net", self.seed))
            with WholeDraws():
                net.init_weights()
                torch.manual_seed(seed_of("weights", "lora", self.seed))
                initialise_adapters(net)
        if self.pretrained is not None:
            try:
                reports = begin(net, text, self.pretrained)
            except ValueError as error:
                raise TrainingError(f"model.pretrained: {error}") from error
            if self.global_rank == 0:
                sys.stdout.write("".join(f"{report}\n" for report in reports))
        if self.lora is not None and self.lora.start is not None:
            try:
                report = go_on(net, self.lora)
            except ValueError as error:
                raise TrainingError(f"model.lora.start: {error}") from error
            if self.global_rank == 0:
                sys.stdout.write(f"{report}\n")
        if self.ema is not None:
            for name, average in self.ema.items():
                copy_values(getattr(self, name), average)
        if self.quantize is not None:
            try:
                quantize(net, self.quantize)
            except ValueError as error:
                raise TrainingError(f"model.quantize: {error}") from error
        if self.compiles:
            for block in net.blocks:
                block.compile()

    def _share(self, net: DualStreamTransformer, context: ProcessGroup) -> None:
        """Have each clip's video tokens split over processes."""
        try:
            net.split_over(context)
            net.layout(self.grid, torch.device("cpu"))  # of buckets of another size it is told when one comes
        except ValueError as error:
            raise TrainingError(f"trainer.strategy.init_args.tensor_parallel_size: {error}") from error

    @property
    def place(self) -> tuple[int, int]:
        """This process among those that learn from different clips, and how many there are."""
        places = getattr(self.trainer.strategy, "distributed_sampler_kwargs", None) or {"rank": 0, "num_replicas": 1}
        return places["rank"], places["num_replicas"]

    @property
    def compiles(self) -> bool:
        """Whether blocks are compiled."""
        if self.compile_blocks is not None or self._trainer is None:
            return bool(self.compile_blocks)
        mixed = getattr(getattr(self, "router", None), "per", "batch") != "batch"
        return self._trainer.strategy.root_device.type == "cuda" and not mixed

    def configure_optimizers(self) -> Any:
        net, text = self.built
        return self.optimizer_config.build([net, text], net.cross_modal_parameters(), max_steps=self.trainer.max_steps)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """As Lightning's, and under bf16 with a fused optimizer as well.

        Lightning refuses the two together for the sake of float16, whose gradients are scaled until the fused step.
        """
        float16 = str(self.trainer.precision).startswith("16")
        if float16 or gradient_clip_algorithm == "value":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            norm = nn.utils.clip_grad_norm_(parameters, gradient_clip_val)
            if not torch.isfinite(norm.full_tensor() if isinstance(norm, DTensor) else norm):
                raise TrainingError(
                    f"the gradients are not finite at step {self.trainer.global_step}, although the loss is; nothing "
                    "was updated in this step, and earlier checkpoints are as they were"
                )

    @property
    def built(self) -> tuple[DualStreamTransformer, TextEncoder]:
        """Network and text encoder, which exist once `configure_model` has run."""
        if self.net is None or self.text is None:
            self.configure_model()
        assert self.net is not None and self.text is not None
        return self.net, self.text

    # Learning

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        size, tasks = len(batch.id), self.tasks_of(batch)
        rows = self._routed(tasks, size)
        parts = [(tasks[name], own) for name, own in rows.items()]
        losses = self.losses_by_task(batch, parts, index=self.batches, rank=self.place[0])
        found = dict(zip(rows, losses, strict=True))
        # The mean over clips of what each one's task counts.

        def total(weight: AV[float]) -> Tensor:
            return torch.as_tensor(
                sum(len(rows[n]) / size * self.weighed(one.mean(), tasks[n], weight) for n, one in found.items())
            )

        told = self._report(batch, tasks, rows, found, total(AV(1.0, 1.0)))
        self.batches += 1
        return {"loss": total(batch.weight), **told}

    def tasks_of(self, batch: Batch) -> dict[str, Task]:
        """What a batch may train: all tasks, or what is left of them where its clips lack a stream of the network."""
        given = batch.media if batch.latents is None else batch.latents
        lacking = [x is None and ends is not None for x, ends in zip(given or (1, 1), self.built[0].ends, strict=True)]
        return alone(self.tasks, STREAMS[1 - lacking.index(True)]) if any(lacking) else self.tasks

    def _routed(self, tasks: dict[str, Task], size: int) -> dict[str, list[int]]:
        """The rows of this process's batch that train each task, in the order of the tasks."""
        # Keyed on batches, not on global_step: a checkpoint within an accumulation would repeat the draw.
        step, before = divmod(self.batches, self.trainer.accumulate_grad_batches)
        rank, ranks = self.place
        first = (before * ranks + rank) * size
        places = range(first, first + size)
        names = [self.router.route(tasks, seed=self.seed, step=step, place=place) for place in places]
        if unknown := [name for name in names if name not in tasks]:
            raise TrainingError(f"the router asks for the task {unknown[0]!r}; there are {', '.join(tasks)}")
        return {name: [row for row in range(size) if names[row] == name] for name in tasks if name in names}

    @property
    def progress(self) -> float:
        """Share of the training's optimizer steps that are done; 0 where there is no training, or none with an end."""
        trainer = self._trainer
        return 0.0 if trainer is None or trainer.max_steps < 1 else min(1.0, trainer.global_step / trainer.max_steps)

    def weighed(self, losses: Losses, task: Task, weight: AV[float] = AV(1.0, 1.0)) -> Tensor:
        """Eq. 7: the sum over terms and streams, each multiplied by its weight, and what the interactions ask for.

        A stream that is not there adds nothing.

        Args:
            losses: of clips.
            task: that they train.
            weight: of each stream, beside the task's, those of `loss_weights` and what a callback has found.
        """
        pairs = zip(STREAMS, weight, self.balance, strict=True)
        own_of = [each * found * self.loss_weights.get(name, 1.0) for name, each, found in pairs]
        terms = [
            sum(x * (w * own) for x, w, own in zip(streams, term.weights, own_of, strict=True) if x is not None)
            for streams, term in zip(losses.terms, task.terms, strict=True)
        ]
        own = self.built[0].interaction.weights(self.progress) if losses.added else {}
        added = [x * self.loss_weights.get(name, 1.0) * own.get(name, 1.0) for name, x in losses.added.items()]
        return torch.as_tensor(sum([*terms, *added]))

    def losses(self, batch: Batch, task: Task, *, index: int, rank: int = 0, at: AV[Tensor] | None = None) -> Losses:
        """Losses of each clip, (B,), where all train one task; the arguments are those of `losses_by_task`."""
        (found,) = self.losses_by_task(batch, [(task, range(len(batch.id)))], index=index, rank=rank, at=at)
        return found

    def losses_by_task(
        self,
        batch: Batch,
        parts: Sequence[tuple[Task, Sequence[int]]],
        *,
        index: int,
        rank: int = 0,
        at: AV[Tensor] | None = None,
    ) -> list[Losses]:
        """Losses of the clips that train each task, in one forward of all the tasks' terms.

        One whatever is drawn: under FSDP2 all processes gather parameters together, and under DDP none is unused.

        Args:
            batch: media or latents, and prompts.
            parts: tasks, and the rows of the batch that train each, ascending.
            index: of the batch since training began.
            rank: of this process among those that learn from different clips; clip r of rank k draws what clip k B + r
                of one process would.
            at: times of each stream, (B,), in the place of those that are drawn.
        """
        net, text = self.built
        z = self.encode(batch)
        grid = replace(self.grid, **batch.grid)
        chance = self.draw(batch.prompt, z, index=index, rank=rank)
        if at is not None:
            chance = replace(chance, time=at.map(lambda t: t.to(self.device)))
        states = text(chance.prompt) if batch.text is None else batch.text.read(chance.prompt)
        extras = dict(batch.extras)
        if shown := "image" in net.needs and z.video is not None:
            extras["image"] = self.show(batch)
        terms = [(term, rows) for task, rows in parts for term in task.terms]
        voice = self.voice(extras.pop(VOICE, None), [term for term, _ in terms], z)
        taken: list[Any] = []
        for term, rows in terms:
            t, c = placed(chance, term, z, grid, shown=shown)
            t = AV.zip(lambda _, t: t, z, t)
            if voice is not None:
                there = voice.there & told(chance, term).to(voice.there.device)
                extras = extras | {VOICE: voice._replace(there=there)}  # each term's own
            taken.append(chosen((z, chance.noise, t, c, states, extras), rows, len(batch.id)))
        x, noise, times, counted, texts, more = zip(*taken, strict=True)
        chunk = math.gcd(*(len(rows) for _, rows in terms))  # chunks of a forward are equal
        v_hat, added = net(
            joined([AV.zip(flow.interpolate, *of) for of in zip(x, noise, times, strict=True)]),
            joined([aligned(t, times) for t in times]),
            joined(texts),
            grid=grid,
            view=[term.view for term, rows in terms for _ in range(len(rows) // chunk)],
            extras=joined(more),
        )
        sizes = [len(rows) for _, rows in terms]
        by_term = [v_hat.map(lambda x, i=i: x.split(sizes)[i]) for i in range(len(sizes))]
        v = [AV.zip(flow.velocity, *of) for of in zip(x, noise, strict=True)]
        each = iter([AV.zip(loss_by_clip, *of) for of in zip(by_term, v, counted, strict=True)])
        rest = {name: iter(x.split([len(rows) * len(task.terms) for task, rows in parts])) for name, x in added.items()}
        return [
            Losses(
                tuple(next(each) for _ in task.terms),
                {name: next(xs).unflatten(0, (len(task.terms), -1)).mean(0) for name, xs in rest.items()},
            )
            for task, _ in parts
        ]

    def on_validation_epoch_start(self) -> None:
        there = AV(*(ends is not None for ends in self.built[0].ends))
        self._binned = Binned(self.tasks, there, self.bins, self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The losses of every task, with the same times, noise and given parts each time."""
        rank, ranks = self.place
        times = stratified(len(batch.id), bins=self.bins, seed=self.seed, place=batch_idx * ranks + rank)
        batch = replace(batch, latents=self.encode(batch))  # once for all tasks
        for name, task in self.tasks_of(batch).items():
            found = self.losses(batch, task, index=-1 - batch_idx, rank=rank, at=times)
            self._binned.add(name, task, found, times)

    def on_validation_epoch_end(self) -> None:
        self.validated = self._binned.means(self.trainer.strategy.reduce(self._binned.sums, reduce_op="mean"))
        told = {f"val_loss/{name}": x for name, x in self.validated.items()}
        self.log_dict(told, logger=False, sync_dist=True)
        if not self.trainer.sanity_checking:
            for logger in self.trainer.loggers:  # where the losses of this step are, which Lightning counts from 0
                logger.log_metrics(told, self.trainer.global_step - 1)

    @torch.no_grad()
    def encode(self, batch: Batch) -> AV[Tensor]:
        """The batch's latents, ready ones as they are, media through the codec; float32.

        Those of a stream that the network has not are left out (stage 1 trains the audio stream alone).
        """
        given: AV[Any] | None = batch.media if batch.latents is None else batch.latents
        if given is None:
            raise TrainingError(f"clips {', '.join(batch.id)} hold neither media nor latents")
        given = AV.zip(lambda x, ends: None if ends is None else x.float(), given, self.built[0].ends)
        if batch.latents is not None:
            return given
        with torch.autocast(self.device.type, enabled=False):
            pictures = None if given.video is None else given.video / 127.5 - 1
            z: AV[Any] = self.codec.encode(AV(pictures, given.audio), replace(self.grid, **batch.grid))
        return z.map(lambda x: x.float())

    @torch.no_grad()
    def show(self, batch: Batch) -> Shown:
        """First pictures of the batch's clips, as a network of Wan2.1-I2V's kind is shown them.

        Raises:
            TrainingError: the clips are latents, which hold no pictures.
        """
        if batch.media is None or self.image is None:
            raise TrainingError(
                f"clips {', '.join(batch.id)} are latents, but this network is shown each clip's first picture: train "
                "it on shards of media (`ccl shards make`), not on encoded ones"
            )
        with torch.autocast(self.device.type, enabled=False):
            pictures: Tensor = batch.media.video[:, :, 0].float() / 127.5 - 1
            return show(pictures, batch.media.video.shape[2], self.codec.video, self.image)

    @torch.no_grad()
    def voice(self, sound: Tensor | None, terms: Sequence[Term], z: AV[Tensor]) -> Voice | None:
        """Reference voices of the batch's clips; None where no term gives one.

        Args:
            sound: (B, S) of each, zeros where nobody speaks.
            terms: that the batch trains.
            z: latents of the clips.

        Raises:
            TrainingError: a term gives one, and the batch brings none.
        """
        if z.audio is None or not any(gives_voice(term) for term in terms):
            return None
        if sound is None:
            if self.training:
                raise TrainingError("a task gives a voice, which the data do not bring; the talking world's do")
            return None
        with torch.autocast(self.device.type, enabled=False):
            latents = self.codec.audio.encode(sound.float(), self.grid.latents_of(VOICE_SECONDS))
        return Voice(latents.float(), sound.any(1))

    def draw(self, prompt: list[str], z: AV[Tensor], *, index: int, rank: int = 0) -> Draws:
        """What chance decides for one batch, with this module's seed and distributions; see `ccl.training.draws`."""
        return draw(
            prompt, z, seed=self.seed, index=index, rank=rank, time=self.time, text_dropout=self.text_dropout,
            device=self.device,
        )  # fmt: skip

    @torch.no_grad()
    def _report(
        self, batch: Batch, tasks: dict[str, Task], rows: dict[str, list[int]], found: dict[str, Losses], loss: Tensor
    ) -> dict[str, Any]:
        """What is told of a step, over the clips of all processes: logged, and checked to be finite.

        Returns:
            `task`, its name or MIXED; `shares` of the clips, by task; and the `report`, mean losses that count. Where
            tasks are mixed, each loss says its task, and each task has a loss of its own.
        """
        own = [len(rows.get(name, ())) / len(batch.id) for name in tasks]
        some = next(iter(found.values()))
        keys: list[tuple[str, str]] = []
        values = [loss]
        # Of all tasks, as other processes may have drawn others.
        for part, (name, task) in zip(own, tasks.items(), strict=True):
            means = found[name].mean() if name in found else some.none_of(task)
            named = {f"loss/{name}/loss": self.weighed(means, task)} | by_key(name, task, means)
            keys += [(name, key) for key in named]
            values += [part * x for x in named.values()]
        sent = torch.stack([*values, *loss.new_tensor(own)]).float()
        total, *sums = self.trainer.strategy.reduce(sent, reduce_op="mean").tolist()
        shares = {name: x for name, x in zip(tasks, sums[len(keys) :], strict=True) if x}
        report = {key: x / shares[name] for (name, key), x in zip(keys, sums, strict=False) if name in shares}
        said = MIXED if len(shares) > 1 else next(iter(shares))
        report.pop(f"loss/{said}/loss", None)  # which is the step's
        if not math.isfinite(total):
            bad = [
                batch.id[row]
                for name, one in found.items()
                for row, fine in zip(rows[name], self.weighed(one, tasks[name]).isfinite().tolist(), strict=True)
                if not fine
            ]
            raise TrainingError(
                f"the loss is {total} at step {self.trainer.global_step}, batch {self.batches}, task "
                f"{' and '.join(shares)}, from {'clips ' + ', '.join(bad) if bad else 'clips of another process'}; "
                "nothing was updated in this step, and earlier checkpoints are as they were"
            )
        self.log("loss", total, prog_bar=True, batch_size=len(batch.id))
        self.log_dict(report, batch_size=len(batch.id))
        short = {key.removeprefix("loss/").removeprefix(f"{said}/"): x for key, x in report.items()}
        return {"task": said, "shares": shares, "report": {"loss": total} | short}

    # Saving

    def on_fit_start(self) -> None:
        """Tell the data what is learned from them; refuse a weight that falls towards an end that there is not, and a
        sharded checkpoint of another model.

        The latter before it is read: one that holds more would load in silence.
        """
        interaction = self.built[0].interaction
        begun, ended = interaction.weights(0.0), interaction.weights(1.0)
        moving = [name for name in begun if begun[name] != ended.get(name)]
        if moving and self.trainer.max_steps < 1:
            raise TrainingError(
                f"{type(interaction).__name__} weighs its loss {moving[0]!r} by the share of the training that is "
                "done, and this one has no end; set trainer.max_steps"
            )
        serve = getattr(getattr(self.trainer, "datamodule", None), "serve", None)
        if serve is not None:
            net, text = self.built
            voices = any(gives_voice(term) for task in self.tasks.values() for term in task.terms)
            needs = (*net.interaction.needs, *([VOICE] if voices else []))
            serve(AV(*(ends is not None for ends in net.ends)), text, needs)
        for stream in getattr(getattr(self.trainer, "datamodule", None), "alone", ()):
            check_alone(self.tasks, stream, self.trainer.strategy)
        path = self.trainer.ckpt_path
        if path is not None and Path(path).is_dir():
            self._check_sharded(Path(path))

    def _check_sharded(self, path: Path) -> None:
        """Each process reads its share of the files, and all tell what any of them has found."""
        check_shapes(shapes_of(self.state_dict()), sharded_shapes(path), f"checkpoint {path}")
        if not is_complete(path):  # written by others than SaveCheckpoint
            return
        found = None
        try:
            check_parts(path, part=self.global_rank, parts=self.trainer.world_size)
        except ValueError as error:
            found = str(error)
        if told := [sentence for sentence in gathered(found) if sentence]:
            raise TrainingError(told[0])

    def on_train_start(self) -> None:
        """What a checkpoint of another run has brought gives way to this run's rates."""
        for optimizer, config in zip(self.trainer.optimizers, self.trainer.lr_scheduler_configs, strict=True):
            assert isinstance(config.scheduler, LambdaLR)
            self.optimizer_config.impose(optimizer, config.scheduler)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["batches"] = self.batches
        if "optimizer_states" in checkpoint:  # a sharded checkpoint writes them another way
            checkpoint["optimizer_states"] = [written(state) for state in checkpoint["optimizer_states"]]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the count of batches; refuse in a sentence weights of another shape, and other trained ones."""
        source = f"checkpoint {self.trainer.ckpt_path}"
        self.batches = checkpoint["batches"]
        states = checkpoint.get("optimizer_states", [])
        if not isinstance(states, list) or not all(isinstance(s, dict) and "param_groups" in s for s in states):
            raise TrainingError(f"{source} holds no states of an optimizer where they should be; take another one")
        if state := checkpoint.get("state_dict"):  # a sharded checkpoint brings its weights another way
            check_shapes(shapes_of(self.state_dict()), shapes_of(state), source)
        for optimizer in states:
            there = [(group["name"], len(group["params"])) for group in optimizer["param_groups"]]
            net, text = self.built
            groups = self.optimizer_config.groups([net, text], net.cross_modal_parameters())
            if there != (here := [(group["name"], len(group["params"])) for group in groups]):
                raise TrainingError(
                    f"{source} was made by a training of other parameters ({counted(there)}; here {counted(here)}); "
                    "start from its weights, with --model.pretrained in the place of --ckpt_path"
                )
        if states:
            checkpoint["optimizer_states"] = [read(state) for state in states]


def counted(groups: list[tuple[str, int]]) -> str:
    """Groups of parameters and how many are in each, in words."""
    return ", ".join(f"{number} {name}" for name, number in groups)
