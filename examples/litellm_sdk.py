"""Ask with LiteLLM's SDK; the prefix openai/ stands for any server with OpenAI's API."""

import os

import litellm

address = os.environ.get("SOPHIA_BASE_URL", "http://localhost:8080/v1")
server = {"api_base": address, "api_key": os.environ["SOPHIA_API_KEY"]}
messages = [{"role": "user", "content": "What does a router do?"}]
answer = litellm.completion(model="openai/sophia/auto", messages=messages, **server)
print(answer.choices[0].message.content)
print(answer.model, answer.sophia["reason"], f"${answer.usage.cost:.6f}")
