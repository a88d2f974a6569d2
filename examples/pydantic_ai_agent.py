"""Ask with an agent of Pydantic AI; its model for OpenRouter shows the cost."""

import os

from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.models.openrouter import OpenRouterModel
from pydantic_ai.providers.openrouter import OpenRouterProvider

address = os.environ.get("SOPHIA_BASE_URL", "http://localhost:8080/v1")
client = AsyncOpenAI(base_url=address, api_key=os.environ["SOPHIA_API_KEY"])
model = OpenRouterModel("sophia/auto", provider=OpenRouterProvider(openai_client=client))
answer = Agent(model).run_sync("What does a router do?").response
print(answer.text, answer.model_name, f"${answer.provider_details['cost']:.6f}", sep="\n")
