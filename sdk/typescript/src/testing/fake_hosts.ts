/** The one host of the fake. Nothing really runs there, so it is never busy. */

import type { Host, HostList, HostRoom } from "../host_shapes.js";
import { VERSION } from "../version.js";
import { stamp, type FakeSession } from "./fake_session.js";

const GB = 2 ** 30;

export function hostsOf(sessions: Iterable<FakeSession>, since: Date): HostList {
  const states = [...sessions].filter(({ isExpired }) => !isExpired).map(({ shape }) => shape.state);
  const [active, idle, deepSleep] = (["active", "idle", "deep-sleep"] as const).map(
    (state) => states.filter((one) => one === state).length,
  ) as [number, number, number];
  const only: Host = {
    hostId: "local",
    state: "active",
    draining: false,
    drainSecondsLeft: null,
    address: "127.0.0.1:8000",
    version: VERSION,
    joinedAt: stamp(since, 0),
    lease: null,
    sessions: { active, idle, deepSleep, unsaved: 0 },
    load: {
      cores: 4,
      load: 0,
      sandboxes: active + idle,
      parked: 0,
      memory: room(16 * GB, GB),
      disk: room(100 * GB, 2 * GB),
      volumes: room(80 * GB, 2 * GB),
      addresses: { total: 4094, used: active + idle, reserved: 0 },
    },
  };
  return { hosts: [only], nobody: { active: 0, idle: 0, deepSleep: 0, unsaved: 0 } };
}

function room(total: number, reserved: number): HostRoom {
  return { total, used: 0, reserved };
}
