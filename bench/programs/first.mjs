import { Buntime } from "../../sdk/typescript/dist/index.js";

const session = await new Buntime().sessions.create({ ttl: 3600 });
process.stdout.write((await session.execute("console.log(6 * 7)")).stdout);
await session.delete();
