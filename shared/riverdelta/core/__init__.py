"""The pure core: every decision of riverdelta, and no redis, asyncio, clock, random or environment."""
