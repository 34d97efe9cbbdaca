"""LeRobot datasets of both layouts, written by hand with pyarrow and PyAV as lerobot would."""

import json
from fractions import Fraction

import numpy as np

FPS = 10
LENGTHS = (12, 5, 9)
TASKS = ("push the block", "lift the block")
CAMERAS = ("observation.images.front", "observation.images.wrist")
BOOKKEEPING = {
    "timestamp": {"dtype": "float32", "shape": [1], "names": None},
    **{
        name: {"dtype": "int64", "shape": [1], "names": None}
        for name in ("frame_index", "episode_index", "index", "task_index")
    },
}


def episodes(lengths=LENGTHS, seed=0):
    """Per episode: state, environment state, action, reward, success, pictures of two cameras."""
    rng = np.random.default_rng(seed)
    return [
        {
            "observation.state": rng.normal(size=(n, 3)).astype(np.float32),
            "observation.environment_state": rng.normal(size=(n, 2, 2)).astype(np.float64),
            "observation.gripper": rng.normal(size=(n, 1)).astype(np.float32),
            "action": rng.uniform(-1, 1, (n, 2)).astype(np.float32),
            "next.reward": np.linspace(0, 1, n).astype(np.float32),
            "next.success": np.arange(n) == n - 1,
            CAMERAS[0]: rng.integers(0, 256, (n, 24, 32, 3), np.uint8),
            CAMERAS[1]: rng.integers(0, 256, (n, 16, 16, 3), np.uint8),
        }
        for n in lengths
    ]


def features(sets, pictures="video"):
    """The entry `features` of info.json, with some that are not read."""
    entries = {}
    for key, value in sets[0].items():
        shape = list(value.shape[1:]) or [1]
        dtype = pictures if key in CAMERAS else str(value.dtype)
        names = ["height", "width", "channels"] if key in CAMERAS else None
        entries[key] = {"dtype": dtype, "shape": shape, "names": names}
    entries["action"]["names"] = {"motors": ["x", "y"]}
    entries["observation.state"]["names"] = ["a", "b", "c"]
    entries["next.done"] = {"dtype": "bool", "shape": [1], "names": None}
    entries["observation.note"] = {"dtype": "string", "shape": [1], "names": None}
    return {**entries, **BOOKKEEPING}


def table(episode, index, first, pictures="video"):
    """One episode's rows; the second half of each is of the second task."""
    import pyarrow as pa

    steps = len(episode["action"])
    columns = {}
    for key, value in episode.items():
        if key in CAMERAS:
            if pictures == "image":
                kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
                columns[key] = pa.array([{"bytes": png(frame), "path": "x.png"} for frame in value], kind)
        elif value.ndim == 2 and value.shape[1] > 1:
            columns[key] = pa.FixedSizeListArray.from_arrays(pa.array(value.reshape(-1)), value.shape[1])
        else:
            columns[key] = pa.array(value.reshape(steps) if value.ndim == 2 else value.tolist())
    columns["next.reward"] = pa.array(episode["next.reward"])
    columns["next.done"] = pa.array(np.arange(steps) == steps - 1)
    columns["observation.note"] = pa.array(["text"] * steps)
    columns["timestamp"] = pa.array((np.arange(steps) / FPS).astype(np.float32))
    columns["frame_index"] = pa.array(np.arange(steps))
    columns["episode_index"] = pa.array(np.full(steps, index))
    columns["index"] = pa.array(np.arange(first, first + steps))
    columns["task_index"] = pa.array(task_index(steps))
    return pa.table(columns)


def task_index(steps):
    return (np.arange(steps) >= steps / 2).astype(np.int64)


def write_v2(root, sets, pictures="video", version="v2.1", encoder="libx264rgb"):
    """One parquet and one mp4 per episode."""
    import pyarrow.parquet as pq

    info = {
        "codebase_version": version,
        "robot_type": "so100",
        "total_episodes": len(sets),
        "total_frames": sum(len(e["action"]) for e in sets),
        "total_tasks": 2,
        "chunks_size": 2,  # the third episode lies in the second chunk
        "fps": FPS,
        "splits": {"train": f"0:{len(sets)}"},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": features(sets, pictures),
    }
    first = 0
    for i, episode in enumerate(sets):
        path = root / f"data/chunk-{i // 2:03d}/episode_{i:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table(episode, i, first, pictures), path)
        first += len(episode["action"])
        for key in CAMERAS if pictures == "video" else ():
            mp4(root / f"videos/chunk-{i // 2:03d}/{key}/episode_{i:06d}.mp4", episode[key], encoder)
    lines(root / "meta/tasks.jsonl", [{"task_index": i, "task": text} for i, text in enumerate(TASKS)])
    rows = [{"episode_index": i, "tasks": list(TASKS), "length": len(e["action"])} for i, e in enumerate(sets)]
    lines(root / "meta/episodes.jsonl", rows)
    (root / "meta/info.json").write_text(json.dumps(info))
    return root


def write_v3(root, sets, pictures="video", per_file=2, encoder="libx264rgb", lead=0):
    """Files of `per_file` episodes; `lead` frames of nobody's stand at the start of each video."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    info = {
        "codebase_version": "v3.0",
        "robot_type": "so100",
        "total_episodes": len(sets),
        "total_frames": sum(len(e["action"]) for e in sets),
        "total_tasks": 2,
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": FPS,
        "splits": {"train": f"0:{len(sets)}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": features(sets, pictures),
    }
    rows, first = [], 0
    for file in range(-(-len(sets) // per_file)):
        members = range(file * per_file, min((file + 1) * per_file, len(sets)))
        tables, shown = [], lead
        for i in members:
            steps = len(sets[i]["action"])
            row = {"episode_index": i, "tasks": list(TASKS), "length": steps}
            row |= {"dataset_from_index": first, "dataset_to_index": first + steps}
            row |= {"data/chunk_index": 0, "data/file_index": file}
            row |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0, "stats/action/count": [steps]}
            for key in CAMERAS if pictures == "video" else ():
                row |= {f"videos/{key}/chunk_index": 0, f"videos/{key}/file_index": file}
                row[f"videos/{key}/from_timestamp"] = shown / FPS
                row[f"videos/{key}/to_timestamp"] = (shown + steps) / FPS
            tables.append(table(sets[i], i, first, pictures))
            rows.append(row)
            first, shown = first + steps, shown + steps
        path = root / f"data/chunk-000/file-{file:03d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.concat_tables(tables), path, row_group_size=7)  # groups do not end where episodes do
        for key in CAMERAS if pictures == "video" else ():
            frames = np.concatenate([np.zeros_like(sets[0][key][:lead]), *(sets[i][key] for i in members)])
            mp4(root / f"videos/{key}/chunk-000/file-{file:03d}.mp4", frames, encoder)
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    # pandas writes the texts as the table's index
    pq.write_table(pa.table({"task_index": [0, 1], "__index_level_0__": list(TASKS)}), root / "meta/tasks.parquet")
    (root / "meta/info.json").write_text(json.dumps(info))
    return root


def mp4(path, frames, encoder="libx264rgb"):
    """A video; `libx264rgb` gives every pixel back."""
    import av

    options = {"libx264rgb": {"qp": "0"}, "libx264": {"crf": "20"}, "libsvtav1": {"crf": "30", "preset": "8"}}[encoder]
    pixels = "rgb24" if encoder == "libx264rgb" else "yuv420p"
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(encoder, rate=FPS, options={**options, "g": "2"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixels
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def png(frame):
    """One picture as the bytes of a file."""
    import av

    codec = av.CodecContext.create("png", "w")
    codec.height, codec.width = frame.shape[:2]
    codec.pix_fmt, codec.time_base = "rgb24", Fraction(1)
    packets = [*codec.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")), *codec.encode(None)]
    return b"".join(map(bytes, packets))


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
