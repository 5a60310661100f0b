"""Uses a package of its own requirements.txt (hellowithdeps-requirements.txt). Handler: hellowithdeps.handler"""

from dateutil.parser import isoparse


def handler(event, context):
    data = event["data"]
    data["weekday"] = isoparse(data["date"]).strftime("%A")
    return data
