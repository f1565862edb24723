// Shows openapi.json. FastAPI's own page would load scripts from other servers.
const make = (name, text = "", ...children) => {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
};

function list(title, pairs) {
  if (!pairs.length) return [];
  const found = make("dl");
  for (const [name, text] of pairs) found.append(make("dt", name), make("dd", text));
  return [make("h3", title), found];
}

function typeOf(schema) {
  const kinds = schema.anyOf ?? [schema];
  return kinds.map((one) => (one.enum ? one.enum.join(", ") : one.type)).filter((one) => one && one !== "null").join(" or ");
}

function limits(schema) {
  const found = (schema.anyOf ?? [schema]).find((one) => "minimum" in one || "maximum" in one) ?? {};
  const parts = [];
  if ("minimum" in found) parts.push(`from ${found.minimum}`);
  if ("maximum" in found) parts.push(`to ${found.maximum}`);
  if (schema.default !== undefined && schema.default !== null) parts.push(`default ${schema.default}`);
  return parts.length ? ` (${parts.join(" ")})` : "";
}

const api = await (await fetch("/openapi.json")).json();
const shown = [make("p", api.info.description)];
for (const [path, methods] of Object.entries(api.paths)) {
  for (const [method, about] of Object.entries(methods)) {
    const section = make("section", "", make("h2", "", make("code", `${method.toUpperCase()} ${path}`)), make("p", about.summary));
    if (about.description) section.append(make("p", about.description));
    section.append(
      ...list(
        "Parameters",
        (about.parameters ?? []).map((one) => [
          `${one.name} (${one.in}): ${typeOf(one.schema)}`,
          `${one.description ?? one.schema.description ?? ""}${limits(one.schema)}`,
        ]),
      ),
      ...list("Answers", Object.entries(about.responses).map(([status, one]) => [status, one.description])),
    );
    if (about.requestBody) section.append(make("pre", `curl -F file=@a.jpg '${location.origin}${path}' -o b.jpg`));
    shown.push(section);
  }
}
document.getElementById("operations").replaceChildren(...shown);
document.documentElement.dataset.ready = "yes";
