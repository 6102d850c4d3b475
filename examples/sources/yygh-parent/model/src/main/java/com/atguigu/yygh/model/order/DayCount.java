package com.atguigu.yygh.model.order;

import java.math.BigDecimal;
import java.time.LocalDate;

/** How many orders were placed on a day, and how many of them were cancelled. */
public record DayCount(LocalDate day, int placed, int cancelled, BigDecimal amount) {
}
