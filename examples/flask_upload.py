"""Judges what is posted to /judge as `clip`: `flask --app examples/flask_upload.py run`."""

import tempfile

from flask import Flask, request

from dfd_edge import Detector, SourceError
from dfd_edge.sources import SourceOptions

app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = 64 * 2**20
detector = Detector.load()


@app.post("/judge")
def judge():
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        request.files["clip"].save(file)
        file.flush()
        try:
            options = SourceOptions(sandbox=True)
            verdict = detector.analyze(file.name, duration_s=60, options=options)
        except SourceError as error:
            return {"error": f"the upload: {error.cause}", "mend": error.mend}, 422
    return {**verdict.to_record(), "source": "upload"}
