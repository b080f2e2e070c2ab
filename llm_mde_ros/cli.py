"""The command `llm-mde`: depth for files and bags, facts about a model, a demonstration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
import errno
import json
from pathlib import Path
import signal
from typing import Annotated, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
import typer

# What needs torch or rclpy is imported by the command that uses it: --help stays quick.
app = typer.Typer(help='Metric depth from one camera.', no_args_is_help=True, add_completion=False)
errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
DEFAULT_HFOV_DEG = 60.0
INTERRUPTED = 130
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Model = Annotated[str, typer.Option(help='Bundled name, folder, or owner/name@commit.')]
Adapter = Annotated[str, typer.Option(help='Folder of a peft adapter.')]
Device = Annotated[str, typer.Option(help='auto, cpu, cuda, cuda:N or mps.')]
Precision = Annotated[str, typer.Option(help='auto, fp32, fp16 or bf16.')]
AllowDownload = Annotated[
    bool, typer.Option('--allow-download', help='Fetch a model that is not on this machine.')
]
ImageTopic = Annotated[str | None, typer.Option(help='Colour topic, if not the only one.')]
InfoTopic = Annotated[str | None, typer.Option(help='CameraInfo topic, if not beside the images.')]
Hfov = Annotated[float, typer.Option(help='Horizontal field of view of a bag without CameraInfo.')]
Pixels = Annotated[float | None, typer.Option(help='Intrinsics, in pixels of the images.')]


@app.command()
def infer(
    source: Annotated[Path, typer.Argument(help='Image, folder of images, or video.')],
    out: Annotated[Path, typer.Option(help='Folder for the results.')],
    hfov_deg: Annotated[
        float | None,
        typer.Option(help=f'Horizontal field of view; {DEFAULT_HFOV_DEG:g} if nothing is given.'),
    ] = None,
    fx: Pixels = None,
    fy: Pixels = None,
    cx: Pixels = None,
    cy: Pixels = None,
    ply: Annotated[bool, typer.Option('--ply', help='Write coloured point clouds too.')] = False,
    model: Model = 'tiny',
    adapter: Adapter = '',
    device: Device = 'auto',
    precision: Precision = 'auto',
    allow_download: AllowDownload = False,
) -> None:
    """Write depth (16-bit PNG, millimetres, 0 unknown) and a preview of every image."""
    from llm_mde_core.estimator import DepthEstimator
    from llm_mde_ros.image_files import Lens, infer_files, open_source

    with sentences_for_errors():
        if (hfov_deg, fx, fy, cx, cy) == (None,) * 5:
            hfov_deg = DEFAULT_HFOV_DEG
            warn(f'No lens is given: a horizontal field of view of {hfov_deg:g}° is assumed.')
        lens = Lens(hfov_deg=hfov_deg, fx=fx, fy=fy, cx=cx, cy=cy)
        if out.resolve() == source.resolve():
            raise ValueError('The results need another folder than the images.')
        images = open_source(source)
        estimator = DepthEstimator.from_pretrained(
            model,
            adapter=adapter or None,
            device=device,
            precision=precision,
            allow_download=allow_download,
        )
        with progress_bar('images') as update:
            done, failures = infer_files(
                images, out, estimator=estimator, lens=lens, ply=ply, on_image=update
            )
        for sentence in failures:
            errors.print(sentence, style='red')
        good = done - len(failures)
        print(f'{good} image{"" if good == 1 else "s"} done, in {out}.')
    if failures or not done:
        raise typer.Exit(1)


@app.command()
def replay(
    bag: Annotated[Path, typer.Argument(help='rosbag2 (sqlite3, mcap) or ROS 1 bag.')],
    out: Annotated[Path, typer.Option(help='New bag; a killed replay goes on where it was.')],
    with_originals: Annotated[
        bool, typer.Option('--with-originals', help='Copy all topics of the bag too.')
    ] = False,
    points: Annotated[bool, typer.Option(help='Write point clouds.')] = True,
    preview: Annotated[bool, typer.Option(help='Write depth as colours.')] = True,
    confidence: Annotated[bool, typer.Option('--confidence', help='Write confidence.')] = False,
    stride: Annotated[int, typer.Option(help='Take every n-th row and column for points.')] = 2,
    namespace: Annotated[str, typer.Option(help='In front of depth/image and the others.')] = '',
    image_topic: ImageTopic = None,
    camera_info_topic: InfoTopic = None,
    image_rectified: Annotated[
        bool,
        typer.Option('--image-rectified', help='Rectified images, CameraInfo with distortion.'),
    ] = False,
    hfov_deg: Hfov = DEFAULT_HFOV_DEG,
    model: Model = 'tiny',
    adapter: Adapter = '',
    device: Device = 'auto',
    precision: Precision = 'auto',
    allow_download: AllowDownload = False,
    part_mb: Annotated[int, typer.Option(help='Size of a file of the bag.')] = 512,
) -> None:
    """Write depth, camera_info, preview and points of every image of a bag into a new bag."""
    from llm_mde_ros.outputs import OutputSettings
    from llm_mde_ros.replay import ReplayOptions
    from llm_mde_ros.replay import replay as run_replay

    optional = {'depth/preview': preview, 'points': points, 'confidence': confidence}
    with sentences_for_errors('The same command goes on where it stopped.'):
        options = ReplayOptions(
            model=model,
            adapter=adapter or None,
            device=device,
            precision=precision,
            allow_download=allow_download,
            image_topic=image_topic,
            camera_info_topic=camera_info_topic,
            image_rectified=image_rectified,
            hfov_deg=hfov_deg,
            outputs=('depth/image', 'depth/camera_info', *(n for n in optional if optional[n])),
            namespace=namespace,
            with_originals=with_originals,
            settings=OutputSettings(points_stride=stride),
            part_bytes=part_mb * 2**20,
        )
        with progress_bar('images') as update:
            summary = run_replay(bag, out, options, on_frame=update)
        if summary.warning:
            warn(summary.warning)
        if summary.dropped:
            warn(f'{summary.dropped} images could not be used. The first: {summary.reason}')
        if summary.left_out:
            warn(f'Not copied, their types are unknown: {", ".join(summary.left_out)}')
        print(f'{summary.images - summary.dropped} images of {summary.topics.image}, in {out}.')


@app.command()
def info(
    model: Annotated[
        str, typer.Argument(help='Bundled name, folder, or owner/name@commit.')
    ] = 'tiny',
    adapter: Adapter = '',
    allow_download: AllowDownload = False,
    as_json: Annotated[bool, typer.Option('--json', help='Print JSON.')] = False,
) -> None:
    """Show the parts of a model, their parameters, input size, training data and licence."""
    from llm_mde_core.estimator import DepthEstimator

    with sentences_for_errors():
        facts = DepthEstimator.from_pretrained(
            model, adapter=adapter or None, device='cpu', allow_download=allow_download
        ).info()
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    table = Table(title=str(facts.get('model', model)), show_header=False, title_style='bold')
    for name, value in flat(facts):
        table.add_row(name, value)
    Console().print(table)


@app.command()
def export(
    out: Annotated[Path, typer.Option(help='New folder, for --model and the node.')],
    width: Annotated[int, typer.Option(help='Of the images of the camera, pixels.')],
    height: Annotated[int, typer.Option(help='Of the images of the camera, pixels.')],
    hfov_deg: Annotated[float | None, typer.Option(help='Its horizontal field of view.')] = None,
    fx: Annotated[float | None, typer.Option(help='Or its focal length, pixels.')] = None,
    model: Annotated[
        str, typer.Argument(help='Bundled name, folder, or owner/name@commit.')
    ] = 'tiny',
    adapter: Adapter = '',
    allow_download: AllowDownload = False,
) -> None:
    """Write a model as ONNX, for the images of one camera; onnxruntime runs it, also on GPUs."""
    from llm_mde_core.export import export as run_export
    from llm_mde_core.geometry import Camera

    with sentences_for_errors():
        if (hfov_deg is None) == (fx is None):
            raise ValueError('Give the camera: either --hfov-deg or --fx.')
        if fx is None:
            camera = Camera.from_hfov(width=width, height=height, hfov_deg=hfov_deg)
        else:
            camera = Camera(width, height, fx, fx, (width - 1) / 2, (height - 1) / 2)
        difference = run_export(model, camera, out, adapter=adapter, allow_download=allow_download)
    print(f'{out} is written: its outputs differ from torch by at most {difference:.1e}.')


@app.command()
def demo(
    bag: Annotated[
        Path | None, typer.Option(help='Bag to play; without one, a room is rendered.')
    ] = None,
    out: Annotated[Path, typer.Option(help='Folder for bag, picture and figures.')] = Path('out'),
    rate: Annotated[float, typer.Option(help='Times the speed of the bag.')] = 1.0,
    image_topic: ImageTopic = None,
    camera_info_topic: InfoTopic = None,
    depth_topic: Annotated[
        str | None, typer.Option(help='True depth, if not found on the pixel grid of colour.')
    ] = None,
    hfov_deg: Hfov = DEFAULT_HFOV_DEG,
    model: Model = 'tiny',
    adapter: Adapter = '',
    device: Device = 'auto',
) -> None:
    """Play a bag into the node over DDS, record what it publishes, measure and draw."""
    from llm_mde_ros.demo import DemoOptions, run_demo

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the node is stopped too
    options = DemoOptions(
        bag=bag,
        out=out,
        model=model,
        adapter=adapter,
        device=device,
        rate=rate,
        hfov_deg=hfov_deg,
        image_topic=image_topic,
        camera_info_topic=camera_info_topic,
        depth_topic=depth_topic,
    )
    with sentences_for_errors(), progress_bar('images') as update:
        report = run_demo(options, say=say, on_frame=update)
    Console().print(demo_table(report))
    print(f'{out / "bag"}, {out / "demo.png"} and {out / "demo.json"} are written.')


@app.command()
def bench(
    ros: Annotated[
        bool, typer.Option('--ros', help='Measure the node too: rate, latency, processor time.')
    ] = False,
    models: Annotated[str, typer.Option(help='Presets, names or folders: a,b.')] = 'tiny,paper',
    sizes: Annotated[str, typer.Option(help='Widths of 4:3 images, pixels.')] = '640',
    inputs: Annotated[str, typer.Option(help='Widths of 4:3 network inputs, pixels.')] = '',
    batches: Annotated[str, typer.Option(help='Batches of those inputs.')] = '1',
    precisions: Annotated[str, typer.Option(help='fp32, bf16, fp16, auto.')] = '',
    compile: Annotated[str, typer.Option(help='off, on, onnx, auto.')] = '',
    device: Device = 'auto',
    seconds: Annotated[float, typer.Option(help='Time for each case.')] = 5.0,
    memory: Annotated[bool, typer.Option(help='Measure the peak memory of each case.')] = True,
    report: Annotated[Path | None, typer.Option('--json', help='Write the report.')] = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(help='Print the ratios of two reports.')
    ] = None,
    soak: Annotated[
        int | None, typer.Option(help='Print the memory while this many frames go through.')
    ] = None,
    profile: Annotated[
        bool, typer.Option('--profile', help='Print what takes the time of every case.')
    ] = False,
) -> None:
    """Measure speed beside the authors' way, Depth Anything and the machine's limit."""
    from llm_mde_core.bench import command
    from llm_mde_core.bench.options import BenchOptions, names, numbers

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the node is stopped too
    with sentences_for_errors():
        options = BenchOptions(
            models=names(models),
            sizes=numbers(sizes),
            inputs=numbers(inputs),
            batches=numbers(batches),
            precisions=names(precisions),
            compile=names(compile),
            device=device,
            seconds=seconds,
            memory=memory,
        )
        if compare:
            command.compare(*compare)
        elif soak is not None:
            command.soak_frames(options, frames=soak)
        elif profile:
            command.profile(options)
        else:
            command.bench(
                options,
                out=report,
                say=say,
                measure_node=node_measurement(options) if ros else None,
            )


def node_measurement(options: Any) -> Callable[[], list[dict[str, Any]]]:
    """Return what measures the node with the first model of the options that it can load."""
    from llm_mde_ros.bench_node import NodeBenchOptions, first_with_weights, measure_node

    model, width = first_with_weights(options.models), options.sizes[0]
    node = NodeBenchOptions(model=model, device=options.device, width=width, height=width * 3 // 4)
    return lambda: measure_node(node, say=say)


def demo_table(report: dict[str, Any]) -> Table:
    """Lay out the figures of a demonstration."""
    latency, abs_rel = report['latency_ms'], report['abs_rel']
    adapter = f', adapter {report["adapter"]}' if report['adapter'] else ''
    title = f'{report["bag"]}, model {report["model"]}{adapter}'
    table = Table(title=title, title_style='bold', show_header=False)
    table.add_column()
    table.add_column(justify='right')
    table.add_row('images in', str(report['frames_in']))
    table.add_row('played late by at most', f'{report["player_behind_s"]:.2f} s')
    table.add_row('depth images out', str(report['frames_out']))
    table.add_row('without depth (skipped, dropped)', str(report['frames_skipped']))
    table.add_row('latency p50', shown(latency['p50'], ' ms'))
    table.add_row('latency p95', shown(latency['p95'], ' ms'))
    table.add_row('AbsRel against true depth', shown(abs_rel, none='no true depth'))
    for name, count in report['node'].items():
        table.add_row(f'the node says: {name}', str(count), style='dim')
    if report['node'].get('skipped'):
        table.caption = (
            'Skipped: a newer image came before the network was done. --rate plays slower.'
        )
    return table


def shown(value: float | None, unit: str = '', *, none: str = 'none') -> str:
    """Write a number that may be missing."""
    return none if value is None else f'{value:g}{unit}'


def flat(facts: dict[str, Any], prefix: str = '') -> Iterator[tuple[str, str]]:
    """Yield nested facts as rows, numbers with separators."""
    for name, value in facts.items():
        label = f'{prefix}{name.replace("_", " ")}'
        if isinstance(value, dict):
            yield from flat(value, prefix=f'{label}: ')
        elif isinstance(value, (list, tuple)):
            yield label, ', '.join(map(str, value))
        else:
            whole = isinstance(value, int) and not isinstance(value, bool)
            yield label, f'{value:,}' if whole else str(value)


@contextmanager
def progress_bar(unit: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show a progress bar on standard error; it is told how many of how many are done."""
    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors) as progress:
        task = None

        def update(done: int, total: int | None) -> None:
            nonlocal task
            task = progress.add_task(unit) if task is None else task
            progress.update(task, completed=done, total=total)

        yield update


@contextmanager
def sentences_for_errors(to_go_on: str = '') -> Iterator[None]:
    """End the command with a sentence instead of a traceback for what users can mend."""
    try:
        yield
    except (ValueError, OSError, RuntimeError) as error:
        errors.print(f'Error: {error}', style='red')
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            errors.print(to_go_on)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        errors.print(f'Interrupted. {to_go_on}')
        raise typer.Exit(INTERRUPTED) from None


def say(sentence: str) -> None:
    """Tell what is going on."""
    errors.print(sentence)


def warn(sentence: str) -> None:
    """Say something that does not end the command."""
    errors.print(f'Warning: {sentence}', style='yellow')


def main() -> None:
    """Run the command line."""
    app()


if __name__ == '__main__':
    main()
