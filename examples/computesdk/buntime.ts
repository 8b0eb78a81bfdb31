/** buntime as a ComputeSDK provider: its sandboxes are sessions of a buntime server. */

import { Buntime, SessionNotFound, type Session } from "@buntime/sdk";
import { defineProvider, type CommandResult, type RunCommandOptions } from "@computesdk/provider";

export interface BuntimeConfig {
  /** By default the environment variable `BUNTIME_API_KEY`. */
  apiKey?: string;
  /** By default the environment variable `BUNTIME_URL`. */
  baseUrl?: string;
}

const SHORTEST_TTL = 300; // seconds
const seconds = (ms: number | undefined): number | undefined => (ms === undefined ? undefined : Math.ceil(ms / 1000));

const clients = new WeakMap<BuntimeConfig, Buntime>();

/** Returns one client per configuration, so that its connections are reused. */
function clientOf(config: BuntimeConfig): Buntime {
  const client = clients.get(config) ?? new Buntime(config);
  clients.set(config, client);
  return client;
}

export const buntime = defineProvider<Session, BuntimeConfig>({
  name: "buntime",
  methods: {
    sandbox: {
      async create(config, options = {}) {
        for (const name of ["templateId", "snapshotId", "image"])
          if (options[name] !== undefined) throw new Error(`this provider has no ${name}: use @buntime/sdk for images and snapshots.`);
        const ttl = options.timeout === undefined ? undefined : Math.max(SHORTEST_TTL, Math.ceil(options.timeout / 1000));
        const named = options.name === undefined ? {} : { name: options.name };
        const request = { ttl, metadata: { ...options.metadata, ...named }, env: options.envs };
        return sandboxOf(await clientOf(config).sessions.create(request, { signal: options.signal }));
      },
      async getById(config, sandboxId) {
        try {
          return sandboxOf(await clientOf(config).sessions.get(sandboxId));
        } catch (failure) {
          if (failure instanceof SessionNotFound) return null;
          throw failure;
        }
      },
      async list(config) {
        return (await clientOf(config).sessions.list().all()).map(sandboxOf);
      },
      async destroy(config, sandboxId) {
        await clientOf(config).sessions.open(sandboxId)[Symbol.asyncDispose]();
      },
      async runCommand(session, command, options = {}) {
        if (!options.background) return resultOf(await session.executeCommand(command, runOptions(options)));
        const started = performance.now();
        await session.processes.start(command, runOptions(options));
        return { stdout: "", stderr: "", exitCode: 0, durationMs: performance.now() - started };
      },
      async streamCommand(session, command, options) {
        const output = { stdout: "", stderr: "" };
        for await (const event of session.streamCommand(command, runOptions(options))) {
          if (event.type === "result") return resultOf({ ...output, ...event });
          if (event.type !== "stdout" && event.type !== "stderr") continue;
          output[event.type] += event.data;
          (event.type === "stdout" ? options.onStdout : options.onStderr)?.(event.data);
        }
        throw new Error("The stream ended without a result.");
      },
      async getInfo(session) {
        const { id, state, metadata, createdAt, expiresAt } = await session.refresh();
        const status = state === "deep-sleep" ? "stopped" : "running";
        const timeout = expiresAt === null ? Infinity : Date.parse(expiresAt) - Date.parse(createdAt);
        return { id, provider: "buntime", status, createdAt: new Date(createdAt), timeout, metadata };
      },
      /** Opens the port to anyone with the URL, as ComputeSDK's users expect. */
      async getUrl(session, { port, protocol }) {
        const { preview = { visibility: "public", ports: [8080] } } = await session.refresh();
        if (preview.visibility === "private" || !preview.ports.includes(port))
          await session.update({ preview: { visibility: "public", ports: [...new Set([...preview.ports, port])] } });
        const url = session.previewUrlFor(port);
        return protocol === undefined ? url : url.replace(/^\w+/, protocol);
      },
      filesystem: {
        readFile: (session, path) => session.files.read(path),
        writeFile: async (session, path, content) => void (await session.files.write(path, content)),
        mkdir: async (session, path) => void (await session.files.mkdir(path)),
        exists: (session, path) => session.files.exists(path),
        remove: (session, path) => session.files.delete(path, { recursive: true }),
        async readdir(session, path) {
          const entries = await session.files.list(path).all();
          return entries.map(({ path, type, size, modified }) => ({
            name: path.slice(path.lastIndexOf("/") + 1),
            type: type === "directory" ? ("directory" as const) : ("file" as const),
            size,
            modified: new Date(modified),
          }));
        },
      },
    },
  },
});

function sandboxOf(session: Session): { sandbox: Session; sandboxId: string } {
  return { sandbox: session, sandboxId: session.id };
}

function runOptions({ cwd, env, timeout }: RunCommandOptions) {
  return { workingDir: cwd, env, timeout: seconds(timeout) };
}

type Run = { stdout: string; stderr: string; exitCode: number; executionTime: number };

function resultOf({ stdout, stderr, exitCode, executionTime }: Run): CommandResult {
  return { stdout, stderr, exitCode, durationMs: executionTime };
}
