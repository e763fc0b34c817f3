// The API page, written from openapi.json.

import { ask, element, say } from "/static/api.js";

const METHODS = ["get", "post", "put", "patch", "delete"];

const typeOf = (schema) => {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" or ");
  if (schema.enum) return schema.enum.map((value) => `"${value}"`).join(" or ");
  if (schema.type === "array") return `list of ${typeOf(schema.items)}`;
  return schema.type || "any";
};

const tableOf = (name, head, rows) => {
  const cells = (row) =>
    row.map((cell, n) => (n ? element("td", { "data-name": head[n] }, cell) : element("th", { scope: "row" }, cell)));
  return element(
    "table",
    { class: "stacked small" },
    element("caption", {}, name),
    element("thead", {}, element("tr", {}, ...head.map((one) => element("th", { scope: "col" }, one)))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...cells(row)))),
  );
};

const firstSentence = ({ description, summary }) =>
  (description || summary || "").match(/^[^]*?[^.]\.(?=\s|$)|^[^]*/)[0];

const operationOf = (path, method, operation) => {
  const details = element(
    "details",
    { class: "operation" },
    element(
      "summary",
      {},
      element("span", { class: "method" }, method.toUpperCase()),
      element("code", {}, path),
      element("span", { class: "about" }, ` ${firstSentence(operation)}`),
    ),
  );
  const body = element("div");
  if (operation.description) body.append(element("p", {}, operation.description));
  if (operation.parameters?.length)
    body.append(
      tableOf(
        "Parameters",
        ["Name", "In", "Type", "Meaning"],
        operation.parameters.map((one) => [one.name, one.in, typeOf(one.schema), one.description || one.schema?.description || ""]),
      ),
    );
  const kinds = Object.entries(operation.requestBody?.content || {});
  if (kinds.length)
    body.append(tableOf("Body", ["Media type", "Type"], kinds.map(([kind, one]) => [kind, typeOf(one.schema)])));
  const answers = Object.entries(operation.responses || {});
  body.append(
    tableOf(
      "Answers",
      ["Status", "Meaning", "Media type", "Type"],
      answers.map(([status, one]) => {
        const [kind, content] = Object.entries(one.content || {})[0] || ["", {}];
        return [status, one.description || "", kind, typeOf(content.schema)];
      }),
    ),
  );
  details.append(body);
  return details;
};

const schemaOf = (name, schema) => {
  const details = element("details", { class: "operation" }, element("summary", {}, element("code", {}, name)));
  if (schema.description) details.append(element("p", {}, schema.description));
  const needed = schema.required || [];
  const rows = Object.entries(schema.properties || {}).map(([field, one]) => [
    field,
    typeOf(one),
    needed.includes(field) ? "always" : "may be missing",
    one.description || "",
  ]);
  if (rows.length) details.append(tableOf("Fields", ["Name", "Type", "Present", "Meaning"], rows));
  return details;
};

const show = async () => {
  const about = await ask("/openapi.json");
  const groups = new Map();
  for (const [path, operations] of Object.entries(about.paths))
    for (const method of METHODS)
      if (operations[method]) {
        const group = operations[method].tags?.[0] || "other";
        if (!groups.has(group)) groups.set(group, []);
        groups.get(group).push(operationOf(path, method, operations[method]));
      }
  const schemas = Object.entries(about.components?.schemas || {});
  if (schemas.length) groups.set("types", schemas.map(([name, schema]) => schemaOf(name, schema)));
  const sections = [...groups].map(([name, entries]) => {
    const title = name[0].toUpperCase() + name.slice(1);
    return element("section", { "aria-label": title }, element("h2", {}, title), ...entries);
  });
  document.getElementById("operations").replaceChildren(...sections);
  say("");
};

show().catch((error) => say(error.message, true));
