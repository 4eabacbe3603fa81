"""What Google says with 429, as it is sent: of a quota of the day, of one of the minute, and of both.

The bodies are as in langgenius/dify#19838, google-gemini/gemini-cli#8437 and continuedev/continue#10062; the door for
OpenAI's dialect, which we use, wraps them in a list.
"""

from __future__ import annotations

from typing import Final

_HEAD: Final = b"""[{
  "error": {
    "code": 429,
    "message": "You exceeded your current quota, please check your plan and billing details. For more information on this error, head to: https://ai.google.dev/gemini-api/docs/rate-limits.",
    "status": "RESOURCE_EXHAUSTED",
    "details": [
      {
        "@type": "type.googleapis.com/google.rpc.QuotaFailure",
        "violations": [
"""  # noqa: E501 - as it is sent
_REQUESTS_OF_THE_DAY: Final = b"""          {
            "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
            "quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier",
            "quotaDimensions": {
              "location": "global",
              "model": "gemini-2.5-flash"
            },
            "quotaValue": "250"
          }
"""
_REQUESTS_OF_THE_MINUTE: Final = b"""          {
            "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
            "quotaId": "GenerateRequestsPerMinutePerProjectPerModel-FreeTier",
            "quotaDimensions": {
              "location": "global",
              "model": "gemini-2.5-flash"
            },
            "quotaValue": "10"
          }
"""
_TAIL: Final = b"""        ]
      },
      {
        "@type": "type.googleapis.com/google.rpc.Help",
        "links": [
          {
            "description": "Learn more about Gemini API quotas",
            "url": "https://ai.google.dev/gemini-api/docs/rate-limits"
          }
        ]
      },
      {
        "@type": "type.googleapis.com/google.rpc.RetryInfo",
        "retryDelay": "22s"
      }
    ]
  }
}
]"""

OF_THE_DAY: Final = _HEAD + _REQUESTS_OF_THE_DAY + _TAIL
OF_THE_MINUTE: Final = _HEAD + _REQUESTS_OF_THE_MINUTE + _TAIL
OF_BOTH: Final = _HEAD + _REQUESTS_OF_THE_MINUTE.rstrip() + b",\n" + _REQUESTS_OF_THE_DAY + _TAIL
RETRY_S: Final = 22
