# The names are those of terraform-aws-modules/vpc, so that a caller can take either.

variable "name" {
  description = "Name of the VPC, and the beginning of its parts' names."
  type        = string
}

variable "cidr" {
  description = "The VPC's IPv4 range, /16 to /24."
  type        = string

  validation {
    condition     = can(cidrnetmask(var.cidr)) && try(tonumber(split("/", var.cidr)[1]) >= 16 && tonumber(split("/", var.cidr)[1]) <= 24, false)
    error_message = "The cidr must be an IPv4 range of /16 to /24, such as 10.0.0.0/16: AWS allows no larger one, and a smaller one has no room for three tiers."
  }
}

variable "azs" {
  description = "Availability zones, one for each subnet of a tier."
  type        = list(string)

  validation {
    condition     = length(var.azs) >= 2 && length(var.azs) <= 3 && length(distinct(var.azs)) == length(var.azs)
    error_message = "The azs must be two or three different zones: the load balancer and the database each need two."
  }
}

variable "public_subnets" {
  description = "IPv4 ranges of the subnets of load balancers and NAT gateways, one for each zone."
  type        = list(string)
}

variable "private_subnets" {
  description = "IPv4 ranges of the nodes' subnets, one for each zone."
  type        = list(string)
}

variable "database_subnets" {
  description = "IPv4 ranges of the subnets of database and cache, one for each zone. They have no way out of the VPC."
  type        = list(string)

  validation {
    condition     = length(var.public_subnets) == length(var.azs) && length(var.private_subnets) == length(var.azs) && length(var.database_subnets) == length(var.azs)
    error_message = "Each tier needs one subnet for each zone: give public_subnets, private_subnets and database_subnets as many ranges as azs has zones."
  }
}

variable "enable_dns_hostnames" {
  description = "Instances have DNS names. Interface endpoints with private names need it."
  type        = bool
  default     = true
}

variable "enable_dns_support" {
  description = "The VPC has a DNS resolver."
  type        = bool
  default     = true
}

variable "enable_nat_gateway" {
  description = "Private subnets reach the internet through NAT gateways."
  type        = bool
  default     = true
}

variable "single_nat_gateway" {
  description = "One NAT gateway for all zones rather than one for each. Cheaper; when its zone fails, no node has a way out."
  type        = bool
  default     = false
}

variable "create_database_subnet_group" {
  description = "Make an RDS subnet group of the database subnets."
  type        = bool
  default     = true
}

variable "enable_flow_log" {
  description = "Record the VPC's traffic in flow_log_destination_arn."
  type        = bool
  default     = false
}

variable "flow_log_destination_arn" {
  description = "ARN of the log group for flow logs."
  type        = string
  default     = ""
}

variable "flow_log_cloudwatch_iam_role_arn" {
  description = "ARN of the role that writes flow logs."
  type        = string
  default     = ""
}

variable "flow_log_max_aggregation_interval" {
  description = "Seconds of traffic in one record, 60 or 600."
  type        = number
  default     = 600
}

variable "tags" {
  description = "Tags of every part."
  type        = map(string)
  default     = {}
}
