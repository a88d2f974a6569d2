"""Ask with LangChain."""

import os

from langchain_openai import ChatOpenAI

address = os.environ.get("SOPHIA_BASE_URL", "http://localhost:8080/v1")
chat = ChatOpenAI(model="sophia/auto", base_url=address, api_key=os.environ["SOPHIA_API_KEY"])
answer = chat.invoke("What does a router do?")
cost = answer.response_metadata["token_usage"]["cost"]
print(answer.content)
print(answer.response_metadata["model_name"], f"${cost:.6f}")
