// The page at /ui/: one state, read again every two seconds, and the provider's own API. Text from functions
// only ever becomes text nodes.
"use strict";

const EVERY = 2000; // milliseconds between two looks at the functions
const LOG_LINES = 500; // lines kept on the page
const OVERLAP = 2000; // milliseconds by which a log stream overlaps with the one before
const SHOWN = 1 << 20; // bytes of an answer shown as text

// What the page is under, without the user and password that its own address may hold: fetch takes none.
const BASE = new URL("..", location.origin + location.pathname);

const at = (id) => document.getElementById(id);
const state = { functions: [], namespaces: [], chosen: null, detail: null };

const keyOf = (f) => `${f.name}.${f.namespace}`;
const chosen = () => state.functions.find((f) => keyOf(f) === state.chosen);

async function call(method, path, body) {
  const answer = await fetch(new URL(`system/${path}`, BASE), {
    method,
    headers: body === undefined ? {} : { "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await answer.text();
  if (!answer.ok) throw new Error(text.trim() || `${answer.status} ${answer.statusText}`);
  return text;
}
const ask = async (path) => JSON.parse(await call("GET", path));

function tell(fault) {
  at("fault").textContent = fault ? fault.message : "";
  at("fault").hidden = !fault;
}

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function condition(f) {
  if (f.replicas === 0) return ["asleep", "at zero"];
  return f.availableReplicas > 0 ? ["ready", "ready"] : ["starting", "not ready"];
}

// ---- the list -------------------------------------------------------------------------------------

async function refresh() {
  try {
    state.namespaces = await ask("namespaces");
    const lists = await Promise.all(state.namespaces.map((n) => ask(`functions?namespace=${encodeURIComponent(n)}`)));
    state.functions = lists.flat().sort((a, b) => keyOf(a).localeCompare(keyOf(b)));
    tell(null);
  } catch (fault) {
    tell(fault);
    return;
  }
  if (state.chosen && !chosen()) choose(null);
  drawList();
  if (state.chosen) await refreshDetail();
}

function drawList() {
  const wanted = at("filter").value.trim().toLowerCase();
  const shown = state.functions.filter((f) => keyOf(f).toLowerCase().includes(wanted));
  const old = new Map([...at("rows").children].map((row) => [row.dataset.key, row]));
  at("rows").replaceChildren(...shown.map((f) => fillRow(old.get(keyOf(f)) ?? newRow(f), f)));
  at("empty").hidden = state.functions.length > 0;
}

function newRow(f) {
  const row = element("tr");
  row.dataset.key = keyOf(f);
  const name = element("td");
  const button = element("button", f.name);
  button.addEventListener("click", () => choose(row.dataset.key));
  name.append(button, element("small"));
  row.append(name, element("td"), element("td", "", "n"), element("td", "", "n"));
  return row;
}

function fillRow(row, f) {
  const [className, text] = condition(f);
  row.className = keyOf(f) === state.chosen ? "chosen" : "";
  row.querySelector("small").textContent = `${f.namespace} · ${f.image}`;
  row.cells[1].replaceChildren(element("span", text, `state ${className}`));
  row.cells[2].textContent = `${f.availableReplicas} / ${f.replicas}`;
  row.cells[3].textContent = f.invocationCount.toLocaleString();
  return row;
}

// ---- one function ---------------------------------------------------------------------------------

function choose(key) {
  if (state.chosen === key) return;
  state.chosen = key;
  state.detail = null;
  at("detail").hidden = !key;
  at("status").textContent = "";
  at("answer").hidden = at("download").hidden = true;
  stopLogs();
  drawList();
  if (!key) return;
  at("name").textContent = chosen().name;
  at("replicas").value = chosen().replicas;
  at("facts").replaceChildren();
  refreshDetail();
  followLogs(chosen());
}

async function refreshDetail() {
  const f = chosen();
  try {
    const status = await ask(`function/${f.name}?namespace=${encodeURIComponent(f.namespace)}&usage=1`);
    if (state.chosen !== keyOf(f)) return;
    state.detail = status;
    drawDetail(status);
  } catch (fault) {
    if (state.chosen === keyOf(f)) tell(fault);
  }
}

const pairs = (map) => Object.entries(map ?? {}).map(([k, v]) => `${k}=${v}`).join("\n");
const size = (bytes) =>
  bytes < 1024 ? `${bytes} bytes` : bytes < 1 << 20 ? `${(bytes / 1024).toFixed(0)} KiB` : `${(bytes / (1 << 20)).toFixed(1)} MiB`;
const limits = (l) => [l?.memory && `memory ${l.memory}`, l?.cpu && `cpu ${l.cpu}`].filter(Boolean).join(", ");

function drawDetail(f) {
  const [, text] = condition(f);
  const facts = {
    State: `${text}, ${f.availableReplicas} of ${f.replicas} replicas`,
    Namespace: f.namespace,
    Image: f.image,
    Address: new URL(`function/${f.name}.${f.namespace}`, BASE).href,
    Process: f.envProcess,
    Created: new Date(f.createdAt).toLocaleString(),
    Invocations: f.invocationCount.toLocaleString(),
    Usage: f.usage && `cpu ${f.usage.cpu.toFixed(0)}m, memory ${size(f.usage.totalMemoryBytes)}`,
    Limits: limits(f.limits),
    Environment: pairs(f.envVars),
    Labels: pairs(f.labels),
    Annotations: pairs(f.annotations),
    Secrets: (f.secrets ?? []).join(", "),
    "Root file system": f.readOnlyRootFilesystem ? "read-only" : "",
  };
  at("facts").replaceChildren(
    ...Object.entries(facts).filter(([, v]) => v).flatMap(([k, v]) => [element("dt", k), element("dd", v)]),
  );
}

at("scale").addEventListener("submit", async (event) => {
  event.preventDefault();
  const f = chosen();
  await busy(event.submitter, () =>
    call("POST", `scale-function/${f.name}?namespace=${encodeURIComponent(f.namespace)}`, {
      serviceName: f.name,
      namespace: f.namespace,
      replicas: Number(at("replicas").value),
    }));
});

// Runs what a button asks for: the button waits, a fault is told, and the list is read again.
async function busy(button, work) {
  button.disabled = true;
  try {
    await work();
    await refresh();
  } catch (fault) {
    tell(fault);
  }
  button.disabled = false;
}

// ---- invoke ---------------------------------------------------------------------------------------

at("invoke").addEventListener("submit", async (event) => {
  event.preventDefault();
  const f = chosen();
  const method = at("method").value;
  const route = at("async").checked ? "async-function" : "function";
  const path = at("path").value.replace(/^(?=[^/?])/, "/");
  const body = at("body").value;
  event.submitter.disabled = true;
  at("status").textContent = "waiting…";
  at("answer").hidden = at("download").hidden = true;
  const began = performance.now();
  try {
    const answer = await fetch(new URL(`${route}/${f.name}.${f.namespace}${path}`, BASE), {
      method,
      headers: body && method !== "GET" ? { "Content-Type": at("type").value } : {},
      body: method === "GET" ? undefined : body,
    });
    const bytes = await answer.arrayBuffer();
    if (state.chosen === keyOf(f)) showAnswer(answer, bytes, performance.now() - began);
  } catch (fault) {
    if (state.chosen === keyOf(f)) at("status").textContent = `no answer: ${fault.message}`;
  }
  event.submitter.disabled = false;
});

function showAnswer(answer, bytes, took) {
  const type = answer.headers.get("Content-Type") ?? "no content type";
  const call = answer.headers.get("X-Call-Id");
  at("status").textContent = [`${answer.status} ${answer.statusText}`.trim(), `${took.toFixed(0)} ms`, size(bytes.byteLength), type,
    call && `call ${call}`].filter(Boolean).join(" · ");
  const link = at("download").querySelector("a");
  URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(new Blob([bytes], { type: "application/octet-stream" }));
  link.download = `${chosen().name}-answer`;
  const text = decode(bytes.slice(0, SHOWN));
  at("answer").textContent = text ?? "";
  at("answer").hidden = !text;
  at("download").hidden = text !== null && bytes.byteLength <= SHOWN;
}

// Text, or null for what is none.
function decode(bytes) {
  const text = new TextDecoder().decode(bytes);
  return text.includes("\u0000") ? null : text;
}

// ---- logs -----------------------------------------------------------------------------------------

let logs = null; // ends the stream of the function shown before

function stopLogs() {
  logs?.abort();
  at("logs").replaceChildren();
  at("log-state").textContent = "";
}

// Follows until another function is chosen. The provider ends a stream before its timeout, so it is asked again, from a
// little before the last line; what is on the page already is left out. Times are not compared: a line's is not yet
// final when it is first told.
async function followLogs(f) {
  const mine = (logs = new AbortController());
  let recent = [];
  while (!mine.signal.aborted) {
    try {
      const last = recent.at(-1);
      const from = last ? `since=${new Date(Date.parse(last.timestamp) - OVERLAP).toISOString()}` : "tail=100";
      const where = `name=${f.name}&namespace=${encodeURIComponent(f.namespace)}&follow=true&${from}`;
      const answer = await fetch(new URL(`system/logs?${where}`, BASE), { signal: mine.signal });
      if (!answer.ok) throw new Error(await answer.text());
      at("log-state").textContent = "live";
      const shown = [...recent];
      for await (const message of lines(answer.body)) {
        const again = shown.findIndex((m) => m.instance === message.instance && m.text === message.text);
        if (again >= 0) {
          shown.splice(again, 1);
          continue;
        }
        recent = [...recent.slice(1 - LOG_LINES), message].filter((m) => isRecent(m, message));
        addLine(message);
      }
    } catch (fault) {
      if (!mine.signal.aborted) at("log-state").textContent = fault.message;
    }
    if (!mine.signal.aborted) await new Promise((done) => setTimeout(done, 1000));
  }
}

const isRecent = (message, newest) => Date.parse(newest.timestamp) - Date.parse(message.timestamp) <= 2 * OVERLAP;

async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const whole = (rest + value).split("\n");
    rest = whole.pop();
    for (const line of whole) if (line) yield JSON.parse(line);
  }
}

function addLine(message) {
  const box = at("logs");
  const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 30;
  const line = element("div");
  line.append(element("small", `${new Date(message.timestamp).toLocaleTimeString()} ${message.instance}  `), message.text);
  box.append(line);
  while (box.childElementCount > LOG_LINES) box.firstElementChild.remove();
  if (atEnd) box.scrollTop = box.scrollHeight;
}

// ---- deploy, update, delete -----------------------------------------------------------------------

const form = at("deploy").querySelector("form");

function readPairs(text, what) {
  const lines = text.split("\n").map((line) => line.trim()).filter(Boolean);
  return Object.fromEntries(lines.map((line) => {
    const cut = line.indexOf("=");
    if (cut < 1) throw new Error(`${what} (${line}) must look like name=value`);
    return [line.slice(0, cut), line.slice(cut + 1)];
  }));
}

// What the form does not show stays as it is in `old`, the function that is updated.
function formBody(old) {
  const field = form.elements;
  const limits = {};
  if (field.memory.value) limits.memory = field.memory.value.trim();
  if (field.cpu.value) limits.cpu = field.cpu.value.trim();
  return {
    service: field.service.value,
    namespace: field.namespace.value,
    image: field.image.value.trim(),
    envProcess: field.envProcess.value,
    envVars: readPairs(field.envVars.value, "environment"),
    labels: readPairs(field.labels.value, "label"),
    annotations: readPairs(field.annotations.value, "annotation"),
    secrets: field.secrets.value.split(/[\s,]+/).filter(Boolean),
    limits: Object.keys(limits).length ? limits : undefined,
    requests: old?.requests,
    constraints: old?.constraints,
    readOnlyRootFilesystem: field.readOnlyRootFilesystem.checked,
  };
}

// `f` is the function to update; null deploys a new one.
async function openForm(f) {
  const field = form.elements;
  form.reset();
  form.dataset.method = f ? "PUT" : "POST";
  form.querySelector("h2").textContent = f ? `Update ${f.name}` : "Deploy a function";
  form.querySelector("button[value=go]").textContent = f ? "Update" : "Deploy";
  form.querySelector(".fault").hidden = true;
  field.namespace.replaceChildren(...state.namespaces.map((n) => element("option", n)));
  field.service.readOnly = Boolean(f);
  field.namespace.disabled = Boolean(f);
  if (f) {
    for (const name of ["image", "namespace"]) field[name].value = f[name];
    field.service.value = f.name;
    field.envProcess.value = f.envProcess ?? "";
    for (const name of ["envVars", "labels", "annotations"]) field[name].value = pairs(f[name]);
    field.secrets.value = (f.secrets ?? []).join(" ");
    field.memory.value = f.limits?.memory ?? "";
    field.cpu.value = f.limits?.cpu ?? "";
    field.readOnlyRootFilesystem.checked = Boolean(f.readOnlyRootFilesystem);
  }
  at("deploy").showModal();
  try {
    const secrets = await ask(`secrets?namespace=${encodeURIComponent(field.namespace.value)}`);
    at("secret-names").replaceChildren(...secrets.map((s) => element("option", s.name)));
  } catch {
    at("secret-names").replaceChildren();
  }
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const place = form.querySelector(".fault");
  const button = event.submitter;
  button.disabled = true;
  place.hidden = true;
  try {
    const body = formBody(form.dataset.method === "PUT" ? state.detail : null);
    await call(form.dataset.method, "functions", body);
    at("deploy").close();
    await refresh();
    choose(`${body.service}.${body.namespace}`);
  } catch (fault) {
    place.textContent = fault.message;
    place.hidden = false;
  }
  button.disabled = false;
});

for (const cancel of document.querySelectorAll("dialog button[value=cancel]")) {
  cancel.addEventListener("click", () => cancel.closest("dialog").close());
}

at("deploy-new").addEventListener("click", () => openForm(null));
at("update").addEventListener("click", () => state.detail && openForm(state.detail));
at("delete").addEventListener("click", () => {
  at("sure").querySelector("p").textContent = `Delete ${chosen().name} and its replicas?`;
  at("sure").showModal();
});
at("sure").querySelector("form").addEventListener("submit", () => {
  const f = chosen();
  busy(at("delete"), () => call("DELETE", "functions", { functionName: f.name, namespace: f.namespace }));
});

// ---- start ----------------------------------------------------------------------------------------

at("filter").addEventListener("input", drawList);

async function about() {
  const info = await ask("info");
  const own = info.provider?.version ? info.provider : info; // the gateway's shape holds the provider's
  at("about").textContent = `${own.version.release} · ${own.orchestration}`;
}

async function run() {
  about().catch(() => {}); // refresh tells what is wrong
  for (;;) {
    if (!document.hidden) await refresh();
    await new Promise((done) => setTimeout(done, EVERY));
  }
}
run();
