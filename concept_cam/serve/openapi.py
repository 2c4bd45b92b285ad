"""The description of the HTTP API, OpenAPI 3.1; written by hand and held against the routes by a test."""

from __future__ import annotations

from typing import Any

import concept_cam

__all__ = ["document"]

_NUMBER: dict[str, Any] = {"type": ["number", "null"]}
_TEXT: dict[str, Any] = {"type": "string"}
_POINT: dict[str, Any] = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
_CLICK: dict[str, Any] = {
    "type": "array",
    "prefixItems": [{"type": "number"}, {"type": "number"}, {"enum": [1, -1]}],
    "minItems": 3,
    "maxItems": 3,
    "description": "x, y in original pixels; 1 for this, -1 for not this",
}

_MODEL: dict[str, Any] = {
    "type": "object",
    "required": ["name", "weights_hash"],
    "properties": {"name": _TEXT, "weights_hash": _TEXT},
}

_QUESTION: dict[str, Any] = {
    "target": {**_TEXT, "description": "What to find, in words", "examples": ["a forked tail fin"]},
    "contrasts": {"type": "array", "items": _TEXT, "maxItems": 32, "description": "What to tell it apart from"},
    "character": {**_TEXT, "description": "In place of words: PACK:CHARACTER of a trait pack", "examples": ["fish:caudal_fin_shape"]},
    "state": {**_TEXT, "description": "State of the character; the likeliest where it is left out"},
    "gamma": {"type": "number", "minimum": 0, "maximum": 10, "default": 1, "description": "Comparison strength"},
    "weighting": {"enum": ["uniform", "softmax", "hardest", "orthogonal"]},
    "threshold": {"type": ["string", "number"], "description": "Strategy such as half-max, or a score"},
    "min_area": {"type": "number", "minimum": 0},
    "clicks": {"type": ["array", "null"], "items": _CLICK, "maxItems": 200},
    "taught": {**_TEXT, "description": "Name of a taught concept that is mixed in; the answer is then not zero-shot"},
    "mix": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.5},
    "certificate": {"type": "boolean", "default": True, "description": "Whether the certificate is part of the answer"},
    "map": {"type": "boolean", "description": "Whether the grid maps are part of the answer"},
}

_SCHEMAS: dict[str, Any] = {
    "Error": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {"type": "object", "required": ["code", "message"], "properties": {"code": _TEXT, "message": _TEXT}},
            "current": {"type": ["object", "null"], "description": "With code conflict: the correction that counts now"},
        },
    },
    "State": {
        "type": "object",
        "required": ["version", "title", "kind", "pictures", "model", "run"],
        "properties": {
            "version": _TEXT,
            "title": _TEXT,
            "kind": {"enum": ["folder", "run", "index", "empty"]},
            "pictures": {"type": "integer"},
            "model": {**_MODEL, "description": "The model that answers"},
            "run": {
                "type": ["object", "null"],
                "required": ["name", "model", "other_weights", "characters"],
                "description": "The annotation run that is served, if any",
                "properties": {
                    "name": _TEXT,
                    "model": {**_MODEL, "description": "The model that made the calls; empty texts where the run does not say"},
                    "other_weights": {
                        "type": ["string", "null"],
                        "description": "Where the calls were made with other weights than those that answer: a sentence that says so",
                    },
                    "characters": {"type": "array", "items": {"type": "object"}},
                },
            },
        },
    },
    "Question": {"type": "object", "properties": _QUESTION, "additionalProperties": False},
    "Ask": {
        "type": "object",
        "properties": {
            "picture": {**_TEXT, "description": "Id of a picture of GET /api/pictures"},
            "image": {**_TEXT, "description": "Or a picture file in base64 (a data: URI is fine)"},
            **_QUESTION,
        },
        "additionalProperties": False,
    },
    "Next": {
        "type": "object",
        "properties": {
            **_QUESTION,
            "wanted": {
                "type": "integer",
                "minimum": 0,
                "maximum": 50,
                "default": 1,
                "description": "Pictures; 0 asks for the progress alone",
            },
        },
        "additionalProperties": False,
    },
    "Region": {
        "type": "object",
        "required": ["box", "area", "peak", "peak_score", "mean_score", "measures", "contours"],
        "properties": {
            "box": {
                "type": "array",
                "items": {"type": "integer"},
                "minItems": 4,
                "maxItems": 4,
                "description": "x0, y0, x1, y1, half-open",
            },
            "area": {"type": "integer"},
            "peak": _POINT,
            "peak_score": _NUMBER,
            "mean_score": _NUMBER,
            "measures": {"type": "object", "additionalProperties": _NUMBER},
            "contours": {"type": "array", "items": {"type": "array", "items": _POINT}},
        },
    },
    "Answer": {
        "type": "object",
        "required": [
            "picture",
            "question",
            "subject",
            "score",
            "probability",
            "probabilities",
            "peak",
            "threshold",
            "regions",
            "ledger",
            "call",
            "certificate",
            "place",
            "taught",
            "zero_shot",
            "unknown_words",
            "provenance",
            "timing",
            "map",
        ],
        "properties": {
            "picture": {
                "type": "object",
                "required": ["id", "source", "title", "width", "height", "specimen", "notes", "version"],
                "properties": {
                    "id": _TEXT,
                    "source": _TEXT,
                    "title": _TEXT,
                    "width": {"type": "integer"},
                    "height": {"type": "integer"},
                    "specimen": {
                        "type": ["object", "null"],
                        "required": ["number", "box"],
                        "description": "Of a run or an index with specimens: its number and its box [x, y, width, height] in the picture",
                    },
                    "notes": {
                        "type": "array",
                        "items": _TEXT,
                        "description": "What was done to its pixels when it was read: first frame, colour profile, scaling",
                    },
                    "version": {
                        "type": "string",
                        "description": "Another text whenever its file was written since; empty for a picture that is held in memory",
                    },
                },
            },
            "question": {"type": "object"},
            "subject": {"type": "object", "description": "What a correction of the answer is about"},
            "score": {**_NUMBER, "description": "Cosine of the whole picture along the direction"},
            "probability": {**_NUMBER, "description": "Of the target against its contrasts; null without contrasts"},
            "probabilities": {"type": "object", "additionalProperties": {"type": "number"}},
            "peak": {
                "type": ["object", "null"],
                "required": ["x", "y", "score"],
                "properties": {"x": {"type": "number"}, "y": {"type": "number"}, "score": _NUMBER},
            },
            "threshold": {"type": "object"},
            "regions": {
                "type": "array",
                "items": {"$ref": "#/components/schemas/Region"},
                "description": "That of the peak first, which need not be the largest, then the others by size; by clicks where some "
                "were sent",
            },
            "ledger": {
                "type": "array",
                "items": {"type": "object"},
                "description": "What each text (target, contrast, around, taught) adds at the peak; sums to its cell's score",
            },
            "call": {
                "type": "object",
                "required": [
                    "from",
                    "state",
                    "probability",
                    "score",
                    "margin",
                    "abstained",
                    "abstained_because",
                    "states",
                    "probabilities",
                    "likely",
                    "likely_probability",
                ],
                "description": "From the run where one is served, else from the model now; abstained where nothing is called, and why",
                "properties": {
                    "from": {"enum": ["run", "model"]},
                    "state": _TEXT,
                    "probability": _NUMBER,
                    "score": _NUMBER,
                    "margin": _NUMBER,
                    "abstained": {"type": "boolean"},
                    "abstained_because": {"type": ["string", "null"]},
                    "limit": {**_NUMBER, "description": "The limit that decided; null for infinite, and for words"},
                    "host_probability": {
                        **_NUMBER,
                        "description": "That the picture shows what the pack is about; null for words and runs",
                    },
                    "states": {"type": "array", "items": _TEXT},
                    "probabilities": {"type": "object"},
                    "likely": {
                        "type": "array",
                        "items": _TEXT,
                        "description": "The fewest states that together have a probability of 0.9; none where nothing is ruled out",
                    },
                    "likely_probability": {**_NUMBER, "description": "That one of these is right; null without any"},
                },
            },
            "certificate": {
                "type": ["object", "null"],
                "description": "Whether the map can be trusted: verdict, reason, confidence, presence, evidence; null for what was taught",
            },
            "place": {
                "type": ["object", "null"],
                "description": "Where one of several was asked for (the left fore wing): whether it could be told, how, and whose left",
            },
            "taught": {"type": ["object", "null"]},
            "zero_shot": {"type": "boolean"},
            "unknown_words": {"type": "array", "items": _TEXT},
            "provenance": {"type": "object"},
            "timing": {"type": "object"},
            "map": {"type": ["object", "null"]},
        },
    },
    "Correction": {
        "type": "object",
        "required": ["picture", "question"],
        "description": "What was said of one picture and one subject (pack, character, part and specimen, as POST /api/ask says). What is "
        "left out (mask, boxes, person, the question's clicks) stays as it is in the correction that counts now; null takes it away. "
        "verdict, state and called belong together: with a verdict all three are those of this body, without one all three stay. Every "
        "correction is a row of its own; taking it back brings back the one before, whole.",
        "properties": {
            "id": {**_TEXT, "maxLength": 64, "description": "Chosen by the client, so that sending twice writes once"},
            "picture": _TEXT,
            "question": {"$ref": "#/components/schemas/Question"},
            "verdict": {
                "enum": ["accept", "reject", "state", "cannot_tell", "", None],
                "description": "null or an empty text takes back what was said of the call, and leaves what was drawn",
            },
            "state": {"type": ["string", "null"], "description": "The state that is right, with verdict state"},
            "called": {
                "type": ["object", "null"],
                "description": "State, probability and score that the person saw, and abstained_because where nothing was called; "
                "accept and reject need the state; limits need it of every verdict, with the probability (of a part, the score)",
            },
            "mask": {
                "type": ["object", "null"],
                "description": "A drawn region: size [rows, columns] (at most 2048) and runs, row by row, zeros first. "
                "Exports take it before boxes: to have boxes in its place, send null",
            },
            "boxes": {
                "type": ["array", "null"],
                "maxItems": 200,
                "items": {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4},
                "description": "All boxes [x0, y0, x1, y1], in the place of those that stand",
            },
            "person": {"type": ["string", "null"], "maxLength": 120},
            "seen": {"type": "integer", "description": "Number of the correction that the person had before the eyes, 0 for none"},
        },
    },
    "Undo": {
        "type": "object",
        "required": ["id"],
        "properties": {"id": {**_TEXT, "description": "Of the correction"}, "person": {**_TEXT, "maxLength": 120}},
    },
    "Limits": {
        "type": "object",
        "properties": {
            "target": {"type": "number", "default": 0.9, "description": "Share of the calls that is to be right"},
            "confidence": {"type": "number", "default": 0.8, "description": "Of that promise"},
        },
    },
    "Teach": {
        "type": "object",
        "required": ["name", "target", "examples"],
        "properties": {
            "name": _TEXT,
            "target": _TEXT,
            "contrasts": {"type": "array", "items": _TEXT},
            "examples": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["picture", "clicks"],
                    "properties": {"picture": _TEXT, "clicks": {"type": "array", "items": _CLICK}},
                },
            },
            "mix": {"type": "number"},
            "person": _TEXT,
        },
    },
    "Predict": {
        "type": "object",
        "required": ["tasks", "label_config"],
        "properties": {"tasks": {"type": "array", "items": {"type": "object"}}, "label_config": _TEXT, "params": {"type": "object"}},
    },
}

_OPERATIONS: tuple[tuple[str, str, str, str, dict[str, Any]], ...] = (
    ("/", "get", "The page", "", {"html": True}),
    ("/page/{file}", "get", "A file of the page", "", {"html": True}),
    ("/openapi.json", "get", "This description", "", {}),
    ("/api/state", "get", "What is served, with which model, and what can be asked", "", {"answer": "State"}),
    ("/api/pictures", "get", "A part of the list of pictures", "", {"query": ("offset", "limit", "search", "title")}),
    ("/api/pictures", "post", "Drop a picture: the file as raw body, its type as content type", "", {"query": ("name",), "raw": True}),
    ("/api/pictures/{id}/image", "get", "A picture as JPEG, without metadata", "", {"query": ("side",), "file": "image/jpeg"}),
    ("/api/ask", "post", "Ask one question about one picture", "Ask", {"answer": "Answer"}),
    ("/api/next", "post", "Which pictures teach most (as many as wanted), and how many labels are still needed", "Next", {}),
    ("/api/corrections", "get", "What people said", "", {"query": ("picture",)}),
    (
        "/api/corrections",
        "post",
        "Write one correction; what it leaves out stays as it was, and the answer says what counts now",
        "Correction",
        {"created": True},
    ),
    ("/api/corrections/undo", "post", "Take a correction back", "Undo", {}),
    ("/api/limits", "get", "New abstention limits, and what they change", "", {"query": ("target", "confidence")}),
    ("/api/limits", "post", "Write them beside the corrections", "Limits", {}),
    ("/api/export/{to}", "get", "Labels, or an export of the run with its corrections", "", {"file": "application/octet-stream"}),
    ("/api/taught", "post", "Teach a concept with clicks", "Teach", {"created": True}),
    ("/api/taught/{name}", "delete", "Forget a taught concept", "", {}),
    ("/health", "get", "Label Studio: is the model there", "", {}),
    ("/setup", "post", "Label Studio: a project introduces itself", "", {"json": True}),
    ("/versions", "get", "Label Studio: the version of the model", "", {}),
    ("/predict", "post", "Label Studio: predictions by the words of the labelling configuration", "Predict", {}),
    ("/webhook", "post", "Label Studio: what people did; nothing is trained", "", {"json": True}),
)


def document() -> dict[str, Any]:
    """Returns the OpenAPI document as plain data."""
    paths: dict[str, Any] = {}
    for path, method, summary, body, notes in _OPERATIONS:
        operation: dict[str, Any] = {"summary": summary, "responses": _responses(notes)}
        parameters = [
            {"name": name, "in": "path", "required": True, "schema": _TEXT}
            for name in ("id", "file", "to", "name")
            if f"{{{name}}}" in path
        ]
        parameters += [{"name": name, "in": "query", "required": False, "schema": _TEXT} for name in notes.get("query", ())]
        if parameters:
            operation["parameters"] = parameters
        schema = {"$ref": f"#/components/schemas/{body}"} if body else {"type": "object"}
        if body or notes.get("json"):
            operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
        if notes.get("raw"):
            operation["requestBody"] = {"required": True, "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}
        paths.setdefault(path, {})[method] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "concept-cam serve",
            "version": concept_cam.__version__,
            "description": "Where is a trait in a picture, as opposed to its look-alikes? All coordinates: original pixels of the "
            "upright picture; where a specimen is asked, of its box.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "Only where the server was started with --host."}
            },
        },
    }


def _responses(notes: dict[str, Any]) -> dict[str, Any]:
    if notes.get("html"):
        content: dict[str, Any] = {"text/html": {}}
    elif "file" in notes:
        content = {notes["file"]: {}}
    else:
        name = notes.get("answer")
        content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"} if name else {"type": "object"}}}
    error = {
        "description": "What was received, what was expected",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
    busy = {**error, "description": "Too much waits; the header Retry-After says when to ask again"}
    done = "201" if notes.get("created") or notes.get("raw") else "200"
    return {done: {"description": "Done", "content": content}, "4XX": error, "503": busy}
