"""Token-budget-aware reasoning for LangChain: wrap a chat model in one line, and see what it saved."""

from tale_langchain.callbacks import TALECallbackHandler
from tale_langchain.chat_model import ChatTALE
from tale_langchain.runnable import TALERunnable

__all__ = ["ChatTALE", "TALECallbackHandler", "TALERunnable"]
