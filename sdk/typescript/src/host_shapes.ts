/** What the server returns for the hosts of the installation, as JSON. */

/** For how long a host is a member, by the database's clock. */
export interface HostLease {
  /** 0: it is over. */
  secondsLeft: number;
  /** Grows when the host joins, leaves or is taken over. */
  incarnation: number;
  /** Of this incarnation. */
  renewals: number;
}

/** How many sessions of all accounts there are. */
export interface HostSessions {
  active: number;
  idle: number;
  deepSleep: number;
  /** Of those in deep sleep: their newest files are on one host alone. */
  unsaved: number;
}

/** One resource. No session starts on the host while less than `reserved` is free. */
export interface HostRoom {
  total: number;
  used: number;
  reserved: number;
}

/** What a host reported last. */
export interface HostLoad {
  cores: number;
  /** Processes that run or wait for a processor. */
  load: number;
  /** Those that serve a session. */
  sandboxes: number;
  /** Sandboxes that are started ahead. */
  parked: number;
  /** Bytes. */
  memory: HostRoom;
  /** Bytes of the file system of its data directory. */
  disk: HostRoom;
  /** Bytes of the file system of the sessions' volumes. */
  volumes: HostRoom;
  /** Each for one sandbox. */
  addresses: HostRoom;
}

export interface Host {
  hostId: string;
  state: "active" | "draining" | "lost" | "left";
  /** Whether it is to drain, also when it is lost or has left. */
  draining: boolean;
  /** Until sessions that are still awake go to deep sleep. Null if the host does not drain. */
  drainSecondsLeft: number | null;
  /** Where other hosts reach it. */
  address: string;
  /** Of its server. */
  version: string;
  joinedAt: string;
  /** Null for the only host of a store. */
  lease: HostLease | null;
  sessions: HostSessions;
  /** Null if its report cannot be read. */
  load: HostLoad | null;
}

export interface HostList {
  /** All of the installation, by id. */
  hosts: Host[];
  /**
   * Sessions that a drain or a removal left without a host. The next request for such a session lets a host
   * claim it.
   */
  nobody: HostSessions;
}
