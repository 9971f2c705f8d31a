"""Ask an exported model one question in a process that cannot see this repository; prints the answer as JSON.

    python scripts/reload_export.py EXPORT '{"video": "a.mp4", "query": "...", "frame_idx": [0, 4], "fps": 8.0, "num_frames": 64}'

Stands alone on purpose: it imports nothing of ours, and removes the repository from the path before it loads anything.
"""

import importlib.util
import json
import sys
from pathlib import Path


def main() -> None:
    """Entry point."""
    sys.path = [entry for entry in sys.path if not (Path(entry or ".") / "model" / "grounding_model.py").exists()]
    if importlib.util.find_spec("model") is not None:
        raise RuntimeError("a package named model is still importable")

    import decord
    import numpy as np
    from transformers import AutoModel, AutoProcessor

    folder, question = sys.argv[1], json.loads(sys.argv[2])
    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(folder, subfolder="mllm")
    frame_idx = np.array(question["frame_idx"])
    answer = model.ground(
        processor,
        query=question["query"],
        frames_THW3=decord.VideoReader(question["video"]).get_batch(frame_idx.tolist()).asnumpy(),
        frame_idx_T=frame_idx,
        fps=question["fps"],
        num_frames=question["num_frames"],
        max_new_tokens=question.get("max_new_tokens", 32),
        answer=question.get("answer"),
    )
    boxes = {str(frame): box for frame, box in answer.boxes_xyxy_px.items()}
    sys.stdout.write(json.dumps({"text": answer.text, "span": answer.span, "boxes": boxes}) + "\n")


if __name__ == "__main__":
    main()
