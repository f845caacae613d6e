"""`python mcp_call.py URL`: as mcp.mjs, with the official client for Python."""

import asyncio
import sys

from mcp.client import Client


async def show(progress, total, message):
    print(int(progress), flush=True)


async def main():
    # It ends its session with DELETE by itself.
    async with Client(sys.argv[1]) as client:
        tools = (await client.list_tools()).tools
        print(",".join(tool.name for tool in tools), flush=True)
        result = await client.call_tool(tools[0].name, {"to": 20}, progress_callback=show)
        print(result.content[0].text)


asyncio.run(main())
