/** The version, which the server's log shows. */
export const VERSION = "0.1.0";
