# Production. What isn't here has the default of production, as variables.tf says.
environment = "production"
aws_region  = "us-east-1"

domain_name = "wms.flowviz.example"
zone_name   = "flowviz.example"

# The WMS calls its database that.
database_name = "wms"

release        = "2026.11.1"
alarm_releases = ["2026.11.1"]
alarm_emails   = ["platform@flowviz.example"]
