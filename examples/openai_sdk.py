"""Ask with OpenAI's SDK for Python."""

import os

from openai import OpenAI

address = os.environ.get("SOPHIA_BASE_URL", "http://localhost:8080/v1")
client = OpenAI(base_url=address, api_key=os.environ["SOPHIA_API_KEY"])
messages = [{"role": "user", "content": "What does a router do?"}]
answer = client.chat.completions.create(model="sophia/auto", messages=messages)
print(answer.choices[0].message.content)
print(answer.model, answer.model_extra["sophia"]["reason"], f"${answer.usage.cost:.6f}")
