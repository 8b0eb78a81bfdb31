/** The processes that belong together, by the cgroup that the host has given them. */

import { readdirSync, readFileSync } from "node:fs";

const ROUNDS = 20; // because processes may fork while they are killed
const SIGKILL = 9;

/** The cgroup of a process as seen from inside. Null when the process is gone or in the guest's own cgroup. */
export function groupOf(pid: number): string | null {
  const group = textOf(`/proc/${pid}/cgroup`);
  return group === "" || group === textOf("/proc/self/cgroup") ? null : group;
}

/** Sends a signal to everything in the cgroup, or to the process's own process group if there is none. Returns whether
 * there was anything to signal. */
export function signalTree(pid: number, group: string | null, number: number): boolean {
  if (group === null) return signal(-pid, number);
  let any = false;
  for (let round = 0; round < (number === SIGKILL ? ROUNDS : 1); round++) {
    const members = membersOf(group);
    if (members.length === 0) break;
    for (const member of members) any = signal(member, number) || any;
  }
  return any;
}

/** The same, but not to the process itself. Without a cgroup, to the rest of its process group. */
export function signalChildren(pid: number, group: string | null, number: number): boolean {
  let any = false;
  for (let round = 0; round < (number === SIGKILL ? ROUNDS : 1); round++) {
    const members = childrenOf(pid, group);
    if (members.length === 0) break;
    for (const member of members) any = signal(member, number) || any;
  }
  return any;
}

/** What lives in the cgroup beside the process; without a cgroup, in its process group. */
export function childrenOf(pid: number, group: string | null): number[] {
  const members = group === null ? livingOf((one) => processGroupOf(one) === pid) : membersOf(group);
  return members.filter((member) => member !== pid);
}

function membersOf(group: string): number[] {
  return livingOf((pid) => textOf(`/proc/${pid}/cgroup`) === group);
}

function livingOf(isMember: (pid: string) => boolean): number[] {
  const pids = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  return pids.filter((pid) => isMember(pid) && isAlive(pid)).map(Number);
}

/** By `/proc/PID/stat`, whose second field may have spaces and parentheses. */
function processGroupOf(pid: string): number {
  const stat = textOf(`/proc/${pid}/stat`);
  return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[2] ?? -1);
}

/** Whether the process has not ended. A zombie counts as ended. */
export function isAlive(pid: number | string): boolean {
  const state = /^State:\t(.)/m.exec(textOf(`/proc/${pid}/status`))?.[1];
  return state !== undefined && state !== "Z" && state !== "X";
}

function signal(pid: number, number: number): boolean {
  try {
    return process.kill(pid, number);
  } catch {
    return false;
  }
}

function textOf(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return "";
  }
}
