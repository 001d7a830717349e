"""The layers of a plan: what was fused into each, and the precision of its outputs."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

# The first line of the message in which TensorRT for RTX lists the layers, in verbose mode.
HEADING = "Layers:\n"
_LAYER = re.compile(
    r"^Name: (?P<name>.*?), LayerType: (?P<type>\w+), Inputs: .*?, Constants: .*?, Outputs: (?P<outputs>.*?)"
    r", TacticName: (?P<tactic>.*?), StreamId: \d+, Metadata: ?(?P<origin>.*)$",
    re.MULTILINE,
)


def from_log(messages: list[str]) -> list[dict[str, Any]]:
    """Return the layers that a builder without an inspector wrote into its log; [] if it wrote none."""
    text = next((message for message in messages if message.startswith(HEADING)), "")
    return [
        {
            "name": layer["name"],
            "type": layer["type"],
            "tactic": layer["tactic"],
            "precision": _types(layer["outputs"]),
            "onnx": re.findall(r"\[ONNX Layer: ([^\]]*)\]", layer["origin"]),
        }
        for layer in _LAYER.finditer(text)
    ]


def from_inspector(information: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the same from the engine inspector's JSON, whose keys differ slightly between versions."""
    rows = []
    for layer in information.get("Layers", []):
        # Built without detailed verbosity.
        if isinstance(layer, str):
            rows.append({"name": layer, "type": "", "tactic": "", "precision": [], "onnx": []})
            continue
        formats = [str(o.get("Format/Datatype", o.get("Datatype", ""))) for o in layer.get("Outputs", [])]
        rows.append(
            {
                "name": layer.get("Name", ""),
                "type": layer.get("LayerType", ""),
                "tactic": layer.get("TacticName", ""),
                "precision": sorted(set(formats)),
                "onnx": re.findall(r"\[ONNX Layer: ([^\]]*)\]", str(layer.get("Metadata", ""))),
            }
        )
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Count the layers of each type and precision, and the ONNX nodes that were fused into them."""
    kinds = Counter(f"{row['type']} {'+'.join(row['precision']) or '-'}" for row in rows)
    # Casts of weights belong to how a graph is stored.
    nodes = {name for row in rows for name in row["onnx"] if not name.endswith(".fp16.cast")}
    return {"layers": len(rows), "onnx_nodes": len(nodes), "by_type_and_precision": dict(kinds.most_common())}


def _types(tensors: str) -> list[str]:
    return sorted(set(re.findall(r"Datatype: (\w+)", tensors)))
