"""Token-budget-aware reasoning for LangChain: wrap a chat model in one line, and see what it saved."""

from tale_langchain.callbacks import TALECallbackHandler
from tale_langchain.runnable import TALERunnable

__all__ = ["TALECallbackHandler", "TALERunnable"]
