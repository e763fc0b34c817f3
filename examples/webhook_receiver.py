"""Prints the notifications of `dfd-edge --webhook http://127.0.0.1:8080/ SOURCE`."""

import http.server
import json


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        print(body["sequence"], body["source"], body["previous_label"], "->", body["label"])
        self.send_response(204)
        self.end_headers()


if __name__ == "__main__":
    http.server.HTTPServer(("127.0.0.1", 8080), Receiver).serve_forever()
