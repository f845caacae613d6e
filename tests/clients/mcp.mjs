// `node mcp.mjs URL`: calls the tool with the official client, and prints each number as it comes, and the result.

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const client = new Client({ name: "test", version: "1" });
const transport = new StreamableHTTPClientTransport(new URL(process.argv[2]));
await client.connect(transport);

const { tools } = await client.listTools();
console.log(tools.map((tool) => tool.name).join());

const call = { name: tools[0].name, arguments: { to: 20 } };
const onprogress = ({ progress }) => console.log(progress);
const result = await client.callTool(call, undefined, { onprogress });
console.log(result.content[0].text);

await transport.terminateSession();
process.exit();
